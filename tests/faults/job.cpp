#include "tests/faults/job.h"

#include "kernels/base/error.h"
#include "src/io/json.h"
#include "src/io/manifest.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// What follows the name, which is in parentheses and may hold blanks: the state, a blank, the parent.
std::string status_of(const fs::path& process) {
  const std::string text = bytes_of(process / "stat");
  const size_t end = text.rfind(')');
  return end == std::string::npos || end + 4 > text.size() ? "Z 0" : text.substr(end + 2);
}

char state_of(const fs::path& process) {
  return status_of(process)[0];
}

/// 0 where it has ended.
pid_t parent_of(const fs::path& process) {
  const std::string status = status_of(process);
  return status[0] == 'Z' ? 0 : std::atoi(status.c_str() + 2);
}

std::vector<std::string> variables_of(const std::vector<std::string>& more, Job::Linger linger) {
  std::vector<std::string> variables = joined(job_variables(), more);
  if (linger == Job::Linger::none) variables.emplace_back("OMPI_MCA_odls_base_sigkill_timeout=0");
  return variables;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::vector<std::string> job_variables() {
  return {"OMP_NUM_THREADS=1", "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
          "OMPI_MCA_mpi_yield_when_idle=1", "OMPI_MCA_btl_vader_single_copy_mechanism=none"};
}

Job::Job(int ranks, const std::vector<std::string>& words, const std::vector<std::string>& variables,
         Linger linger)
    : own_word_(words.at(0)),
      start_time_(unix_time()),
      program_(command(ranks, words), variables_of(variables, linger)) {}

pid_t Job::process_of(int rank) const {
  const std::string wanted = fmt::format("OMPI_COMM_WORLD_RANK={}", rank) + '\0';
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos || parent_of(it->path()) != mpirun())
      continue;
    if (!bytes_of(it->path() / "cmdline").starts_with(PTRAIN_PROGRAM)) continue;
    if (('\0' + bytes_of(it->path() / "environ")).find('\0' + wanted) != std::string::npos)
      return std::stoi(name);
  }
  return 0;
}

bool Job::kill_rank(int rank) {
  pid_t process = 0;
  wait_until([&] { return (process = process_of(rank)) != 0 || has_ended(); });
  return process != 0 && ::kill(process, SIGKILL) == 0;
}

bool Job::kill_rank_when_stopped(int rank, int stopped) {
  wait_until([&] {
    const pid_t process = process_of(stopped);
    return (process != 0 && state_of(fs::path("/proc") / std::to_string(process)) == 'T') || has_ended();
  });
  return kill_rank(rank);
}

ProgramResult Job::wait() {
  const ProgramResult result = program_.wait();
  wait_until([&] { return processes_naming(own_word_) == 0; });
  return result;
}

std::vector<Row> rows_of(const fs::path& output) {
  std::vector<Row> rows;
  const std::string text = bytes_of(output / "metrics.jsonl");
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const Json json = parse_json(std::string_view(text).substr(begin, end - begin), "metrics.jsonl");
    if (!json.contains("loss")) continue;
    Row row{json.at("step").get<int64_t>(), json.at("time").get<double>(), ""};
    for (const char* key :
         {"step", "loss", "grad_norm", "lr", "supervised_tokens", "tokens", "skipped_steps"})
      row.numbers += json.at(key).dump() + " ";
    rows.push_back(std::move(row));
  }
  return rows;
}

Inventory take_inventory(const fs::path& checkpoints) {
  Inventory found;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename();
    const bool is_making = name.starts_with(".tmp-");
    if (is_making) name = name.substr(5);
    if (!name.starts_with("step-")) continue;
    const int64_t step = std::stoll(name.substr(5));
    if (is_making) {
      found.in_the_making = std::max(step, found.in_the_making.value_or(0));
      continue;
    }
    try {
      const Manifest manifest = open_manifest(it->path());
      check(manifest.step == step, ExitCode::input, "{} is step {}", name, manifest.step);
      std::string fault;
      verify_checkpoint(it->path(), manifest, [&](const std::string& text) { fault = text; });
      check(fault.empty(), ExitCode::input, "{}", fault);
      found.newest = std::max(step, found.newest.value_or(0));
    } catch (const Error& damage) {
      found.damaged.emplace_back(damage.what());
    }
  }
  return found;
}

bool wait_until(const std::function<bool()>& condition) {
  for (int i = 0; i < 120'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

std::vector<std::string> joined(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace ptrain::faults
