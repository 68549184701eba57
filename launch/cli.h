// The command line: verbs described as data, their parsing, and what a verb receives.
// Not for what a verb does: each has a file in launch/verbs and a row in launch/verbs.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/train/config_load.h"

namespace ptrain {

struct Arguments;

/// An option of one verb, beside the configuration's keys.
struct Flag {
  std::string_view name;   // "max-new-tokens"; - and _ are equal on the command line
  std::string_view value;  // what stands behind it in the help, "N" or "FILE"; empty: a switch
  std::string_view help;   // one line
};

/// What of the configuration a verb takes.
enum class Takes {
  nothing,    // neither a file nor keys
  keys,       // --key value; --model, --data and --seed stand for model.path, data.train and train.seed
  file,       // CONFIG (or --config FILE) and --key value
  file_keys,  // CONFIG, --key value and the three short names
};

struct Verb {
  std::string_view name;
  std::string_view summary;  // one line
  std::string_view usage;    // behind `ptrain NAME`: "CONFIG --ranks N [--hardware NAME]"
  Takes takes = Takes::nothing;
  int min_words = 0;  // positional arguments, CONFIG not counted
  int max_words = 0;
  std::vector<Flag> flags = {};
  std::string_view details = {};  // further lines of the help
  int (*run)(const Arguments&) = nullptr;
};

using Environment = std::map<std::string, std::string, std::less<>>;

/// A verb's command line, taken apart. Errors of the getters: ExitCode::usage, naming the option.
struct Arguments {
  const Verb* verb = nullptr;
  std::optional<std::string> config_file;
  std::vector<Override> overrides;                        // in the order of the command line
  std::vector<std::string> words;                         // positional arguments, CONFIG not among them
  std::map<std::string, std::string, std::less<>> flags;  // the later wins; a switch has an empty value
  Environment environment;

  bool has(std::string_view flag) const { return flags.contains(flag); }
  std::string value(std::string_view flag, std::string_view fallback = "") const;
  int64_t integer(std::string_view flag, int64_t fallback, int64_t min = INT64_MIN,
                  int64_t max = INT64_MAX) const;
  double number(std::string_view flag, double fallback) const;
  /// The value of a flag that must be there.
  std::string required(std::string_view flag) const;
  /// A variable of the environment, or null: what launchers are recognised by.
  const char* variable(std::string_view name) const;
};

/// Takes the words behind the verb's name apart. Errors: ExitCode::usage, with the nearest option.
Arguments parse_arguments(const Verb& verb, std::span<const std::string> words, Environment environment);

/// The configuration of that command line. Errors: ExitCode::usage.
LoadedConfig load_config(const Arguments& arguments, std::vector<std::string_view> required);

/// "ptrain plan CONFIG --ranks N …": how a verb is called.
std::string invocation(const Verb& verb);

/// What `ptrain --help` and `ptrain VERB --help` print.
std::string help_text(std::span<const Verb> verbs);
std::string help_text(const Verb& verb);

/// What the words behind the program's name ask for.
struct Request {
  enum class Kind { help, verb_help, version, verb };
  Kind kind = Kind::help;
  const Verb* verb = nullptr;          // of verb and verb_help
  std::span<const std::string> words;  // behind the verb's name
};

/// `ptrain VERB …` or, for the verb that has no name on the command line (`train`), `ptrain CONFIG …`.
/// Errors: ExitCode::usage for what is neither a verb nor a file, with the nearest verb.
Request find_request(std::span<const Verb> verbs, std::span<const std::string> words);

}  // namespace ptrain
