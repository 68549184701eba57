// A model of 94,464 parameters, its rows of ids and a configuration in a directory of their own, and ptrain
// started on them, alone or under mpirun. Not for a test's expectations.
#pragma once

#include <chrono>
#include <csignal>
#include <thread>

#include "src/io/json.h"
#include "tests/support/program.h"

namespace ptrain {

inline void put(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The golden case llama-gqa-tied: 4 layers, 6 heads, 2 KV heads, 199 ids, 128 positions, 120 rows of 19 ids.
class TinyRun {
 public:
  TinyRun() {
    std::filesystem::create_directory(model());
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy(fixture("golden/llama-gqa-tied") / name, model());
    std::filesystem::copy(fixture("golden/llama-gqa-tied/train.jsonl"), rows());
    configure("");
  }

  std::filesystem::path root() const { return directory_.path(); }
  std::filesystem::path model() const { return root() / "model"; }
  std::filesystem::path rows() const { return root() / "train.jsonl"; }
  std::filesystem::path config() const { return root() / "c.yaml"; }
  std::filesystem::path output() const { return root() / "out"; }

  /// Five lines and `more`. The rules are those of the golden curve.
  void configure(std::string_view more) const {
    put(config(),
        fmt::format("output: {}\nmodel: {{path: {}}}\n"
                    "data: {{train: [{}], sequence_length: 19, packing: false, shuffle: false}}\n"
                    "optimizer: {{learning_rate: 0.003, warmup_steps: 5}}\nlog: {{tensorboard: false}}\n{}",
                    output().string(), model().string(), rows().string(), more));
  }

  /// Sets a member of config.json.
  void set(const std::string& key, const Json& value) const {
    Json json = read_json(model() / "config.json");
    json[key] = value;
    put(model() / "config.json", json.dump());
  }

 private:
  TemporaryDirectory directory_;
};

/// mpirun's words before the program's; none for a rank of its own.
inline std::vector<std::string> command(int ranks, const std::vector<std::string>& words) {
  std::vector<std::string> all;
  if (ranks > 1) all = {PTRAIN_MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", std::to_string(ranks)};
  all.push_back(PTRAIN_PROGRAM);
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

inline ProgramResult ptrain_on(int ranks, const std::vector<std::string>& words) {
  return run_program(command(ranks, words), {"OMP_NUM_THREADS=1"});
}

inline int times_in(std::string_view text, std::string_view whole) {
  int times = 0;
  for (size_t at = whole.find(text); at != std::string_view::npos; at = whole.find(text, at + 1)) ++times;
  return times;
}

/// How many processes have `text` on their command line: those of a run, by its directory.
inline int processes_naming(const std::string& text) {
  int count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc", error), end; !error && it != end;
       it.increment(error)) {
    std::stringstream line;
    line << std::ifstream(it->path() / "cmdline", std::ios::binary).rdbuf();
    count += line.str().find(text) != std::string::npos;
  }
  return count;
}

/// The same once a loaded machine has had time to end them: 0, where nothing is left behind.
inline int processes_left(const std::string& text) {
  int count = processes_naming(text);
  for (int tries = 0; count > 0 && tries < 100; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    count = processes_naming(text);
  }
  return count;
}

}  // namespace ptrain
