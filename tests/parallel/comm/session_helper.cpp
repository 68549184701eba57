// A small program for session_mpi_test.cpp, which starts it under mpirun and watches how the job ends.
//   session_helper CASE
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/base/log.h"
#include "parallel/comm/session.h"
#include "tests/parallel/comm/values.h"

namespace ptrain {
namespace {

// Messages and collectives that are longer than a piece, by one, by a half, exactly.
int check_pieces(Communicator& world) {
  const int ranks = world.size();
  const int right = (world.rank() + 1) % ranks;
  const int left = (world.rank() + ranks - 1) % ranks;
  for (const int64_t count : {0, 1, 249, 250, 251, 500, 999, 20'011}) {
    std::vector<float> sent = values_of<float>(world.rank(), count);
    std::vector<float> received(sent.size());
    Transfer receive = world.irecv(tensor_of(received), left, Lane::gradient);
    Transfer send = world.isend(tensor_of(sent), right, Lane::gradient);
    receive.wait();
    send.wait();
    check(same_bits(received, values_of<float>(left, count)), "{} elements arrived wrong", count);
    world.all_reduce(tensor_of(sent));
    check(same_bits(sent, naive_sum<float>(ranks, count)), "the sum of {} elements is wrong", count);
  }
  return 0;
}

int run_case(std::string_view name, Session& session) {
  Communicator& world = session.world();
  const bool is_last = world.rank() == world.size() - 1;
  std::vector<double> values(300'000, 1.0);
  if (name == "error-while-others-wait") {
    check(!is_last, ExitCode::resources, "no room for {} bytes", 12345);
    world.all_reduce(tensor_of(values));
  } else if (name == "error-while-others-compute") {
    check(!is_last, ExitCode::numerical, "the loss is not finite");
    std::this_thread::sleep_for(std::chrono::seconds(100));
  } else if (name == "foreign-exception") {
    if (is_last) throw std::out_of_range("no such key");
    world.barrier();
  } else if (name == "all-find-the-same") {
    agreed(world, [] { fail(ExitCode::usage, "unknown key '{}'", "lernrate"); });
  } else if (name == "one-finds-it") {
    agreed(world, [&] { check(!is_last, ExitCode::input, "shard {} is missing", 3); });
  } else if (name == "saved-on-signal") {
    world.all_reduce(tensor_of(values));
    return static_cast<int>(ExitCode::saved_on_signal);
  } else if (name == "lengths-differ") {
    Transfer transfer = world.rank() == 0
                            ? world.isend(Tensor(values.data(), {3}, DType::f64), 1, Lane::control)
                            : world.irecv(Tensor(values.data(), {2}, DType::f64), 0, Lane::control);
    transfer.wait();
    world.barrier();
  } else if (name == "pieces") {
    return check_pieces(world);
  } else if (name == "hosts") {
    if (world.rank() != 0) return 0;
    std::printf("ranks %d on-node %d hosts %zu first-local %d\n", world.size(), session.ranks_on_node(),
                session.hosts().size(), session.local_rank());
  } else {
    fail(ExitCode::usage, "no case {}", name);
  }
  return 0;
}

int run(std::string_view name) {
  Launcher launcher = find_launcher([](const char* variable) { return std::getenv(variable); });
  if (name == "fewer-than-launched") launcher.ranks += 3;
  Session session(launcher, {.max_message_bytes = name == "pieces" ? 1000 : int64_t{1} << 30});
  log::configure(log::Level::info, session.world().rank(), session.world().size());
  return session.run([&] { return run_case(name, session); });
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  try {
    return ptrain::run(argc > 1 ? argv[1] : "");
  } catch (const ptrain::AgreedError& error) {
    if (error.is_speaker()) ptrain::log::write(ptrain::log::Level::error, error.what());
    return static_cast<int>(error.code());
  }
}
