#include "launch/sagemaker.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain::sagemaker {
namespace {

constexpr size_t most_characters = 1024;

/// The job's hosts: ["algo-1", "algo-2"], or with Python's quotes, as SDK v3 writes them; none where it is
/// not said or not readable.
std::set<std::string> hosts_of_job(const Environment& environment) {
  const auto it = environment.find("SM_HOSTS");
  if (it == environment.end()) return {};
  std::string list = it->second;
  std::ranges::replace(list, '\'', '"');
  try {
    return parse_json(list, "SM_HOSTS").get<std::set<std::string>>();
  } catch (const std::exception&) {
    return {};
  }
}

/// How many ranks each host was to have, by the SDK's words: v3 and v2; 0 where neither says a number.
int64_t ranks_asked_for(const Environment& environment) {
  const std::pair<const char*, const char*> places[] = {
      {"SM_DISTRIBUTED_CONFIG", "process_count_per_node"},
      {"SM_FRAMEWORK_PARAMS", "sagemaker_mpi_num_of_processes_per_host"}};
  for (const auto& [variable, key] : places) {
    const auto it = environment.find(variable);
    if (it == environment.end()) continue;
    try {
      const Json words = parse_json(it->second, variable);
      if (words.is_object() && words.contains(key) && words[key].is_number_integer())
        return words[key].get<int64_t>();
    } catch (const Error&) {
      // What ssh makes of it on another host may be no JSON; the first one's rank has it whole.
    }
  }
  return 0;
}

}  // namespace

bool is_job(const Environment& environment) {
  return environment.contains("SM_HOSTS") || environment.contains("SM_CURRENT_HOST") ||
         environment.contains("SM_TRAINING_ENV");
}

void note_failure(const Environment& environment, std::string_view reason,
                  const std::filesystem::path& root) {
  if (!is_job(environment)) return;
  const std::filesystem::path file = root / "opt/ml/output/failure";
  std::error_code error;
  if (std::filesystem::file_size(file, error) > 0 && !error) return;
  std::filesystem::create_directories(file.parent_path(), error);
  size_t length = std::min(reason.size(), most_characters);
  while (length < reason.size() && length > 0 && (static_cast<unsigned char>(reason[length]) & 0xC0) == 0x80)
    --length;
  const std::filesystem::path part = file.string() + fmt::format(".part-{}", ::getpid());
  std::ofstream(part) << reason.substr(0, length);
  std::filesystem::rename(part, file, error);
}

bool wants_model(const Environment& environment) {
  const auto it = environment.find("PTRAIN_SM_MODEL");
  if (it == environment.end() || it->second.empty() || it->second == "0") return false;
  check(it->second == "1", ExitCode::usage,
        "PTRAIN_SM_MODEL is \"{}\": 1 puts the trained model into /opt/ml/model, 0 or nothing does not",
        it->second);
  return true;
}

void copy_model(const std::filesystem::path& model, const std::filesystem::path& root) {
  const std::filesystem::path place = root / "opt/ml/model";
  std::error_code error;
  std::filesystem::create_directories(place, error);
  if (!error) {
    std::filesystem::copy(
        model, place,
        std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing, error);
  }
  check(!error, ExitCode::resources,
        "{} cannot be copied to {}, as PTRAIN_SM_MODEL=1 asks: {}; the model itself is whole", model.string(),
        place.string(), error.message());
}

std::string objection_to_world(const Environment& environment, std::span<const std::string> hosts) {
  const std::set<std::string> of_job = hosts_of_job(environment);
  const std::set<std::string> of_ranks(hosts.begin(), hosts.end());
  const int64_t ranks = std::ssize(hosts), asked = ranks_asked_for(environment);
  const bool is_idle = of_job.size() > of_ranks.size();
  const bool is_short = !of_job.empty() && asked > 0 && ranks != std::ssize(of_job) * asked;
  if (!is_idle && !is_short) return {};
  const int64_t ranks_a_host = asked > 0 ? asked : ranks / std::ssize(of_ranks);
  const std::string found =
      is_idle ? fmt::format("its {} rank{} on {} of them: the others would stay idle", ranks,
                            ranks == 1 ? " is" : "s are", of_ranks.size())
              : fmt::format("{} ranks were asked for on each, and there are {} in all", asked, ranks);
  return fmt::format(
      "SageMaker gave this job {} hosts, but {}. The MPI driver of SDK v3 gives mpirun the ranks of one host "
      "as "
      "the number of all: set mpi_additional_options=[\"-np\", \"{}\", \"--bind-to\", \"none\"]; with a "
      "command "
      "of your own, run mpirun over all hosts",
      of_job.size(), found, std::ssize(of_job) * ranks_a_host);
}

}  // namespace ptrain::sagemaker
