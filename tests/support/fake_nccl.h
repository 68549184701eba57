// NCCL between the threads of a test, on emulated devices: an operation lies in its stream and is done when
// the matching ones of all its ranks have been reached. Other counts, dtypes, roots or another order than the
// other ranks' are errors with the ranks' names; so are two operations of one communicator at the same time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "kernels/base/stream.h"
#include "parallel/comm/nccl_door.h"

namespace ptrain {

enum class FakeSends { rendezvous, eager };  // an eager send is done before its receive is there

/// What the ranks of a test share: made once, outside of their threads.
class FakeNcclWorld {
 public:
  explicit FakeNcclWorld(FakeSends sends = FakeSends::rendezvous);
  ~FakeNcclWorld();

  struct State;
  std::shared_ptr<State> state;
};

/// The library as one rank's thread sees it.
class FakeNccl final : public Nccl {
 public:
  explicit FakeNccl(FakeNcclWorld& world) : state_(world.state) {}
  int version() const override { return 22809; }
  NcclId unique_id() override;
  /// From now on async_error() tells this on every rank.
  void break_with(const std::string& text);
  std::unique_ptr<NcclComm> connect(const NcclId& id, int rank, int ranks, const NcclConfig& config) override;

 private:
  std::shared_ptr<FakeNcclWorld::State> state_;
};

/// Work on device memory in the order of a stream; it runs when the emulated device gets to it.
void enqueue(const Stream& stream, std::function<void()> work);

}  // namespace ptrain
