#include "parallel/comm/thread_comm.h"

#include <thread>

#include "parallel/comm/thread_wire.h"
#include "parallel/comm/wired_comm.h"

namespace ptrain {
namespace {

void run_rank(const std::shared_ptr<ThreadWorld>& world, int rank,
              const std::function<void(Communicator&)>& body) {
  try {
    WiredCommunicator communicator(std::make_unique<ThreadWire>(world, rank));
    body(communicator);
  } catch (const std::exception& error) {
    world->fail_all(rank, error.what(), std::current_exception());
  } catch (...) {
    world->fail_all(rank, "an exception of unknown type", std::current_exception());
  }
  world->leave(rank);
}

}  // namespace

void run_thread_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  check(ranks > 0, "a world of {} ranks", ranks);
  const auto world = std::make_shared<ThreadWorld>(ranks);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&world, rank, &body] { run_rank(world, rank, body); });
  }
  for (std::jthread& thread : threads) thread.join();
  if (const std::exception_ptr failure = world->failure()) std::rethrow_exception(failure);
}

}  // namespace ptrain
