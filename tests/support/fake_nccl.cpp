#include "tests/support/fake_nccl.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/comm/ordered_reduce.h"
#include "tests/support/device_ranks.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/emulation/fibers.h"

namespace ptrain {
namespace {

using Bytes = std::vector<char>;

/// What a rank's operation must have in common with the others'.
struct Signature {
  CommKind kind = CommKind::barrier;
  int64_t count = 0;
  DType dtype = DType::u8;
  int detail = 0;  // reduction or root

  bool operator==(const Signature&) const = default;
};

std::string to_string(const Signature& signature) {
  return fmt::format("{} {} {} ({})", name_of(signature.kind), signature.count, name_of(signature.dtype),
                     signature.detail);
}

/// The n-th collective of a communicator.
struct Meeting {
  Signature signature;
  int first = 0;  // the rank that came first
  int arrived = 0, left = 0;
  std::vector<Bytes> parts;
};

/// A message between two ranks of a communicator.
struct Message {
  Bytes bytes;
  Signature signature;
  bool is_sent = false, is_reached = false;  // the receive has been reached
};

/// What the ranks of a communicator share.
struct Group {
  explicit Group(int ranks) : splits(static_cast<size_t>(ranks)) {}
  std::map<int64_t, Meeting> meetings;                              // by number
  std::map<std::tuple<int, int, int64_t>, Message> messages;        // sender, receiver, number
  std::map<std::pair<int64_t, int>, std::shared_ptr<Group>> parts;  // of splits: number and color
  struct Choice {
    int color, key;
  };
  std::map<int64_t, std::map<int, Choice>> choices;  // of splits
  std::vector<int64_t> splits;
};

}  // namespace

struct FakeNcclWorld::State {
  std::mutex mutex;
  std::condition_variable changed;
  FakeSends sends = FakeSends::rendezvous;
  std::string broken;   // told by async_error
  std::string failure;  // of an operation: all others end with it
  std::map<int64_t, std::shared_ptr<Group>> groups;
  std::map<int64_t, int> connected;
  int64_t ids = 0;

  /// Called with the lock held.
  [[noreturn]] void fail_all(const std::string& text) {
    if (failure.empty()) failure = text;
    fail(ExitCode::defect, "{}", text);
  }
};

namespace {

using NcclState = FakeNcclWorld::State;

/// One operation of one rank; advance() is called with the lock held until it returns true.
class Operation {
 public:
  virtual ~Operation() = default;
  virtual bool advance(NcclState& state, Group& group) = 0;
};

class FakeCollective final : public Operation {
 public:
  FakeCollective(int rank, int ranks, int64_t number, const Signature& signature, const void* from, void* to)
      : rank_(rank), ranks_(ranks), number_(number), signature_(signature), from_(from), to_(to) {}

  bool advance(NcclState& state, Group& group) override {
    Meeting& meeting = group.meetings[number_];
    if (!has_arrived_) arrive(state, meeting);
    if (meeting.arrived < ranks_) return false;
    leave(meeting);
    if (++meeting.left == ranks_) group.meetings.erase(number_);
    return true;
  }

 private:
  void arrive(NcclState& state, Meeting& meeting) {
    if (meeting.arrived == 0) {
      meeting.signature = signature_;
      meeting.first = rank_;
      meeting.parts.resize(static_cast<size_t>(ranks_));
    } else if (meeting.signature != signature_) {
      state.fail_all(fmt::format("operation {}: rank {} has {}, rank {} has {}", number_, meeting.first,
                                 to_string(meeting.signature), rank_, to_string(signature_)));
    }
    const int64_t elements =
        signature_.kind == CommKind::reduce_scatter ? signature_.count * ranks_ : signature_.count;
    const auto* bytes = static_cast<const char*>(from_);
    meeting.parts[static_cast<size_t>(rank_)].assign(bytes, bytes + elements * size_bytes(signature_.dtype));
    ++meeting.arrived;
    has_arrived_ = true;
  }

  void leave(const Meeting& meeting) const {
    const int64_t bytes = signature_.count * size_bytes(signature_.dtype);
    auto* to = static_cast<char*>(to_);
    switch (signature_.kind) {
      case CommKind::all_gather:
        for (int r = 0; r < ranks_; ++r)
          std::memcpy(to + r * bytes, meeting.parts[static_cast<size_t>(r)].data(),
                      static_cast<size_t>(bytes));
        return;
      case CommKind::broadcast:
        std::memcpy(to, meeting.parts[static_cast<size_t>(signature_.detail)].data(),
                    static_cast<size_t>(bytes));
        return;
      default: {
        const int64_t begin = signature_.kind == CommKind::reduce_scatter ? rank_ * bytes : 0;
        std::vector<const void*> sources;
        for (const Bytes& part : meeting.parts) sources.push_back(part.data() + begin);
        const Reduce reduce = signature_.kind == CommKind::reduce_scatter
                                  ? Reduce::sum
                                  : static_cast<Reduce>(signature_.detail);
        reduce_in_order(sources, to, signature_.count, signature_.dtype, reduce);
      }
    }
  }

  int rank_, ranks_;
  int64_t number_;
  Signature signature_;
  const void* from_;
  void* to_;
  bool has_arrived_ = false;
};

class FakeSend final : public Operation {
 public:
  FakeSend(int from, int to, int64_t number, const Signature& signature, const void* data)
      : from_(from), to_(to), number_(number), signature_(signature), data_(data) {}

  bool advance(NcclState& state, Group& group) override {
    Message& message = group.messages[{from_, to_, number_}];
    if (!message.is_sent) {
      const auto* bytes = static_cast<const char*>(data_);
      message.bytes.assign(bytes, bytes + signature_.count * size_bytes(signature_.dtype));
      message.signature = signature_;
      message.is_sent = true;
    }
    return state.sends == FakeSends::eager || message.is_reached;
  }

 private:
  int from_, to_;
  int64_t number_;
  Signature signature_;
  const void* data_;
};

class FakeReceive final : public Operation {
 public:
  FakeReceive(int from, int to, int64_t number, const Signature& signature, void* data)
      : from_(from), to_(to), number_(number), signature_(signature), data_(data) {}

  bool advance(NcclState& state, Group& group) override {
    Message& message = group.messages[{from_, to_, number_}];
    message.is_reached = true;
    if (!message.is_sent) return false;
    if (message.signature != signature_)
      state.fail_all(fmt::format("message {}: rank {} sends {}, rank {} receives {}", number_, from_,
                                 to_string(message.signature), to_, to_string(signature_)));
    std::memcpy(data_, message.bytes.data(), message.bytes.size());
    return true;
  }

 private:
  int from_, to_;
  int64_t number_;
  Signature signature_;
  void* data_;
};

class FakeComm final : public NcclComm {
 public:
  FakeComm(std::shared_ptr<NcclState> state, std::shared_ptr<Group> group, int rank, int ranks)
      : state_(std::move(state)),
        group_(std::move(group)),
        rank_(rank),
        ranks_(ranks),
        sent_(static_cast<size_t>(ranks)),
        received_(static_cast<size_t>(ranks)) {}

  int rank() const override { return rank_; }
  int size() const override { return ranks_; }

  void all_reduce(const void* from, void* to, int64_t count, DType dtype, Reduce reduce,
                  runtime::NativeStream stream) override {
    collective({CommKind::all_reduce, count, dtype, static_cast<int>(reduce)}, from, to, stream);
  }
  void all_gather(const void* part, void* whole, int64_t count, DType dtype,
                  runtime::NativeStream stream) override {
    collective({CommKind::all_gather, count, dtype, 0}, part, whole, stream);
  }
  void reduce_scatter(const void* whole, void* part, int64_t count, DType dtype,
                      runtime::NativeStream stream) override {
    collective({CommKind::reduce_scatter, count, dtype, 0}, whole, part, stream);
  }
  void broadcast(void* data, int64_t count, DType dtype, int root, runtime::NativeStream stream) override {
    collective({CommKind::broadcast, count, dtype, root}, data, data, stream);
  }
  void send(const void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) override {
    const Signature signature{CommKind::point_to_point, count, dtype, 0};
    enqueue(std::make_unique<FakeSend>(rank_, peer, sent_[static_cast<size_t>(peer)]++, signature, data),
            stream);
  }
  void receive(void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) override {
    const Signature signature{CommKind::point_to_point, count, dtype, 0};
    enqueue(
        std::make_unique<FakeReceive>(peer, rank_, received_[static_cast<size_t>(peer)]++, signature, data),
        stream);
  }

  void group_begin() override { is_grouping_ = true; }
  void group_end() override {
    is_grouping_ = false;
    if (!grouped_.empty()) launch(std::exchange(grouped_, {}), stream_of_group_);
  }

  std::unique_ptr<NcclComm> split(int color, int key, const NcclConfig& config) override;
  bool register_buffer(void*, int64_t, Registration registration) override {
    return registration == Registration::local;
  }
  std::string async_error() override {
    const std::lock_guard lock(state_->mutex);
    return state_->broken;
  }
  void abort() noexcept override {}

 private:
  using Operations = std::vector<std::unique_ptr<Operation>>;

  void collective(const Signature& signature, const void* from, void* to, runtime::NativeStream stream) {
    enqueue(std::make_unique<FakeCollective>(rank_, ranks_, collectives_++, signature, from, to), stream);
  }
  void enqueue(std::unique_ptr<Operation> operation, runtime::NativeStream stream) {
    Operations operations;
    Operations& to = is_grouping_ ? grouped_ : operations;
    to.push_back(std::move(operation));
    stream_of_group_ = stream;
    if (!is_grouping_) launch(std::move(operations), stream);
  }

  void launch(Operations operations, runtime::NativeStream stream) {
    const auto shared = std::make_shared<Operations>(std::move(operations));
    const int64_t turn = launched_++;
    emulation::enqueue_when(
        stream, [rank = rank_, shared, turn, state = state_, group = group_, done = done_] {
          std::unique_lock lock(state->mutex);
          if (!state->failure.empty()) fail(ExitCode::defect, "another rank failed: {}", state->failure);
          if (*done != turn)
            state->fail_all(fmt::format(
                "rank {}: operation {} of a communicator begins while {} is under way", rank, turn, *done));
          bool is_done = true;
          for (std::unique_ptr<Operation>& operation : *shared) {
            if (operation != nullptr && operation->advance(*state, *group)) operation.reset();
            is_done &= operation == nullptr;
          }
          if (is_done) ++*done;
          lock.unlock();
          // Another rank must come first: its thread shall have the core.
          if (!is_done) std::this_thread::sleep_for(std::chrono::microseconds(20));
          return is_done;
        });
  }

  std::shared_ptr<NcclState> state_;
  std::shared_ptr<Group> group_;
  int rank_, ranks_;
  std::vector<int64_t> sent_, received_;
  int64_t collectives_ = 0, launched_ = 0;
  std::shared_ptr<int64_t> done_ = std::make_shared<int64_t>(0);
  bool is_grouping_ = false;
  Operations grouped_;
  runtime::NativeStream stream_of_group_ = nullptr;
};

std::unique_ptr<NcclComm> FakeComm::split(int color, int key, const NcclConfig& config) {
  std::unique_lock lock(state_->mutex);
  const int64_t number = group_->splits[static_cast<size_t>(rank_)]++;
  auto& choices = group_->choices[number];
  choices[rank_] = {color, key};
  state_->changed.notify_all();
  const bool is_whole = state_->changed.wait_for(lock, std::chrono::duration<double>(config.deadline_s),
                                                 [&] { return std::ssize(choices) == ranks_; });
  check(is_whole, ExitCode::resources, "split on rank {} of {} ranks: another rank never came", rank_,
        ranks_);
  if (color < 0) return nullptr;
  std::vector<std::pair<int, int>> members;  // key, rank
  for (const auto& [rank, choice] : choices) {
    if (choice.color == color) members.push_back({choice.key, rank});
  }
  std::ranges::sort(members);
  const int ranks = static_cast<int>(members.size());
  const auto self = std::ranges::find(members, std::pair(key, rank_));
  std::shared_ptr<Group>& part = group_->parts[{number, color}];
  if (part == nullptr) part = std::make_shared<Group>(ranks);
  return std::make_unique<FakeComm>(state_, part, static_cast<int>(self - members.begin()), ranks);
}

}  // namespace

FakeNcclWorld::FakeNcclWorld(FakeSends sends) : state(std::make_shared<State>()) {
  state->sends = sends;
}

FakeNcclWorld::~FakeNcclWorld() = default;

void FakeNccl::break_with(const std::string& text) {
  const std::lock_guard lock(state_->mutex);
  state_->broken = text;
}

NcclId FakeNccl::unique_id() {
  const std::lock_guard lock(state_->mutex);
  const int64_t number = ++state_->ids;
  NcclId id;
  std::memcpy(id.bytes.data(), &number, sizeof number);
  return id;
}

std::unique_ptr<NcclComm> FakeNccl::connect(const NcclId& id, int rank, int ranks, const NcclConfig& config) {
  std::unique_lock lock(state_->mutex);
  int64_t number = 0;
  std::memcpy(&number, id.bytes.data(), sizeof number);
  check(number > 0, "rank {} connects with an address that nobody made", rank);
  std::shared_ptr<Group>& group = state_->groups[number];
  if (group == nullptr) group = std::make_shared<Group>(ranks);
  ++state_->connected[number];
  state_->changed.notify_all();
  const bool is_whole = state_->changed.wait_for(lock, std::chrono::duration<double>(config.deadline_s),
                                                 [&] { return state_->connected[number] == ranks; });
  check(is_whole, ExitCode::resources,
        "the start on rank {} of {} ranks on {} hosts: another rank never came", rank, ranks, config.hosts);
  return std::make_unique<FakeComm>(state_, group, rank, ranks);
}

void enqueue(const Stream& stream, std::function<void()> work) {
  emulation::enqueue_when(stream.native(), [work = std::move(work)] {
    work();
    return true;
  });
}

// --- For device_ranks.h ------------------------------------------------------------------------------------

MakeNccl nccl_for_ranks(Through through) {
  const auto world = std::make_shared<FakeNcclWorld>(through == Through::eager_nccl ? FakeSends::eager
                                                                                    : FakeSends::rendezvous);
  return [world] { return std::make_unique<FakeNccl>(*world); };
}

std::string why_not(Through, int) {
  return {};
}

Device device_of(int, Through) {
  return gpu;
}

void seed_streams(uint64_t seed) {
  emulation::seed_order(seed);
}

}  // namespace ptrain
