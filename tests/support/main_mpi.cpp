// main() of a test program whose tests run on all ranks of an mpirun at once. Rank 0 prints and writes the
// report; what fails on another rank fails there too, with that rank's text.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/base/log.h"
#include "parallel/comm/host_objects.h"
#include "parallel/comm/session.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

// Brings the failures of all ranks to rank 0 after each test.
class ShareFailures : public testing::EmptyTestEventListener {
 public:
  explicit ShareFailures(Communicator& world) : world_(world) {}

  void OnTestStart(const testing::TestInfo&) override { mine_.clear(); }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (is_sharing_ || !result.failed()) return;
    const char* file = result.file_name() != nullptr ? result.file_name() : "?";
    mine_ += std::string(file) + ":" + std::to_string(result.line_number()) + ": " + result.message() + "\n";
    // A body that returned early has left the others waiting for it.
    if (result.fatally_failed()) mpi_ranks.abort(mine_);
  }

  void OnTestEnd(const testing::TestInfo&) override {
    const std::vector<std::string> all = gather_text(world_, mine_, 0);
    is_sharing_ = true;
    for (size_t rank = 1; rank < all.size(); ++rank) {
      if (!all[rank].empty()) ADD_FAILURE() << "on rank " << rank << ":\n" << all[rank];
    }
    is_sharing_ = false;
  }

 private:
  Communicator& world_;
  std::string mine_;
  bool is_sharing_ = false;
};

// Only one rank may write the report's file.
void keep_from_reporting(int& argc, char** argv) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--gtest_output", 14) != 0) argv[kept++] = argv[i];
  }
  argc = kept;
  argv[kept] = nullptr;
  unsetenv("GTEST_OUTPUT");
}

int run_tests(Session& session, int argc, char** argv) {
  Communicator& world = session.world();
  log::configure(log::Level::info, world.rank(), world.size());
  if (world.rank() != 0) keep_from_reporting(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world.rank() != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new ShareFailures(world));

  mpi_ranks.world = &world;
  mpi_ranks.abort = [&](const std::string& text) { session.abort(ExitCode::defect, text); };
  int64_t code = RUN_ALL_TESTS();
  world.all_reduce(Tensor(&code, {1}, DType::i64), Reduce::max);
  return static_cast<int>(code);
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  try {
    const ptrain::Launcher launcher =
        ptrain::find_launcher([](const char* name) { return std::getenv(name); });
    ptrain::Session session(launcher);
    return session.run([&] { return ptrain::run_tests(session, argc, argv); });
  } catch (const ptrain::AgreedError& error) {
    if (error.is_speaker()) ptrain::log::write(ptrain::log::Level::error, error.what());
    return static_cast<int>(error.code());
  }
}
