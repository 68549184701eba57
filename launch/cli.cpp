#include "launch/cli.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

struct ShortName {
  std::string_view name;
  std::string_view key;
};
constexpr ShortName short_names[] = {{"model", "model.path"}, {"data", "data.train"}, {"seed", "train.seed"}};

bool takes_file(const Verb& verb) {
  return verb.takes == Takes::file || verb.takes == Takes::file_keys;
}
bool takes_keys(const Verb& verb) {
  return verb.takes != Takes::nothing;
}
bool takes_short_names(const Verb& verb) {
  return verb.takes == Takes::keys || verb.takes == Takes::file_keys;
}

std::string with_dashes(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', '-');
  return text;
}

const Flag* find_flag(const Verb& verb, std::string_view name) {
  const auto it = std::ranges::find(verb.flags, with_dashes(name), &Flag::name);
  return it == verb.flags.end() ? nullptr : &*it;
}

[[noreturn]] void unknown_option(const Verb& verb, std::string_view name) {
  std::vector<std::string_view> known = {"help"};
  for (const Flag& flag : verb.flags) known.push_back(flag.name);
  if (takes_file(verb)) known.push_back("config");
  std::string_view nearest = nearest_word(with_dashes(name), known);
  std::string key(name);
  std::ranges::replace(key, '-', '_');
  if (nearest.empty() && takes_keys(verb)) nearest = nearest_key(key);
  fail(ExitCode::usage, "unknown option --{}{}; ptrain {} --help lists the options", name,
       nearest.empty() ? "" : fmt::format("; did you mean --{}?", nearest), verb.name);
}

/// Walks over the words of a command line.
class Parser {
 public:
  Parser(const Verb& verb, std::span<const std::string> words, Arguments& arguments)
      : verb_(verb), words_(words), arguments_(arguments) {}

  void run() {
    bool are_options_over = false;
    for (next_ = 0; next_ < words_.size();) {
      const std::string& word = words_[next_++];
      if (are_options_over || word == "-" || word.empty() || word[0] != '-') {
        arguments_.words.push_back(word);
      } else if (word == "--") {
        are_options_over = true;
      } else {
        check(word.starts_with("--"), ExitCode::usage, "unknown option {}; options start with two dashes",
              word);
        read_option(word.substr(2));
      }
    }
    place_words();
  }

 private:
  void read_option(const std::string& option) {
    const size_t equals = option.find('=');
    const std::string name = option.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string::npos) value = option.substr(equals + 1);
    if (const Flag* flag = find_flag(verb_, name)) {
      read_flag(*flag, name, std::move(value));
      return;
    }
    if (takes_file(verb_) && name == "config") {
      config_option_ = needed(name, std::move(value), "FILE");
      return;
    }
    if (takes_short_names(verb_)) {
      const auto it = std::ranges::find(short_names, name, &ShortName::name);
      if (it != std::ranges::end(short_names)) {
        arguments_.overrides.push_back(
            {std::string(it->key), needed(name, std::move(value), "a value"), "--" + name});
        return;
      }
    }
    read_key(name, std::move(value));
  }

  void read_flag(const Flag& flag, const std::string& name, std::optional<std::string> value) {
    if (flag.value.empty()) {
      check(!value, ExitCode::usage, "--{} takes no value, but \"{}\" was given", name, value.value_or(""));
      value = "";
    } else {
      value = needed(name, std::move(value), flag.value);
    }
    arguments_.flags.insert_or_assign(std::string(flag.name), *value);
  }

  void read_key(const std::string& name, std::optional<std::string> value) {
    std::string key = name;
    std::ranges::replace(key, '-', '_');
    const bool is_key = key.find('.') != std::string::npos || find_key(key) != nullptr || is_section(key);
    if (!takes_keys(verb_) || !is_key) unknown_option(verb_, name);
    if (!value && has_value_next()) value = words_[next_++];
    arguments_.overrides.push_back({key, std::move(value), "--" + name});
  }

  /// A value may start with one dash (-1, -) but not with two.
  bool has_value_next() const { return next_ < words_.size() && !words_[next_].starts_with("--"); }

  std::string needed(const std::string& name, std::optional<std::string> value, std::string_view what) {
    if (value) return *value;
    check(has_value_next(), ExitCode::usage, "--{} needs {} behind it{}", name, what,
          next_ < words_.size() ? fmt::format("; write --{}={} if that is meant", name, words_[next_]) : "");
    return words_[next_++];
  }

  void place_words() {
    std::vector<std::string>& words = arguments_.words;
    if (takes_file(verb_)) {
      if (config_option_) {
        arguments_.config_file = config_option_;
      } else {
        check(!words.empty(), ExitCode::usage, "the configuration file is missing: {}", usage());
        arguments_.config_file = words.front();
        words.erase(words.begin());
      }
    }
    const auto count = static_cast<int>(words.size());
    check(count >= verb_.min_words, ExitCode::usage, "something is missing: {}", usage());
    check(count <= verb_.max_words, ExitCode::usage, "unexpected \"{}\"; the usage is {}",
          count > 0 ? words.back() : "", usage());
  }

  std::string usage() const { return invocation(verb_); }

  const Verb& verb_;
  std::span<const std::string> words_;
  Arguments& arguments_;
  size_t next_ = 0;
  std::optional<std::string> config_option_;
};

}  // namespace

Arguments parse_arguments(const Verb& verb, std::span<const std::string> words, Environment environment) {
  Arguments arguments;
  arguments.verb = &verb;
  arguments.environment = std::move(environment);
  Parser(verb, words, arguments).run();
  return arguments;
}

std::string Arguments::value(std::string_view flag, std::string_view fallback) const {
  const auto it = flags.find(flag);
  return it == flags.end() ? std::string(fallback) : it->second;
}

std::string Arguments::required(std::string_view flag) const {
  check(has(flag), ExitCode::usage, "--{} is missing: {}", flag, invocation(*verb));
  return value(flag);
}

int64_t Arguments::integer(std::string_view flag, int64_t fallback, int64_t min, int64_t max) const {
  if (!has(flag)) return fallback;
  const std::string text = value(flag);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_whole = error == std::errc{} && end == text.data() + text.size();
  check(is_whole && number >= min && number <= max, ExitCode::usage,
        "--{} must be an integer{}{}, not \"{}\"", flag,
        min == INT64_MIN ? "" : fmt::format(" of at least {}", min),
        max == INT64_MAX ? "" : fmt::format(" and at most {}", max), text);
  return number;
}

double Arguments::number(std::string_view flag, double fallback) const {
  if (!has(flag)) return fallback;
  const std::string text = value(flag);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_whole = error == std::errc{} && end == text.data() + text.size();
  check(is_whole && std::isfinite(number), ExitCode::usage, "--{} must be a number, not \"{}\"", flag, text);
  return number;
}

const char* Arguments::variable(std::string_view name) const {
  const auto it = environment.find(name);
  return it == environment.end() ? nullptr : it->second.c_str();
}

LoadedConfig load_config(const Arguments& arguments, std::vector<std::string_view> required) {
  LoadRequest request;
  if (arguments.config_file) request.file = *arguments.config_file;
  request.overrides = arguments.overrides;
  request.required = std::move(required);
  const char* home = arguments.variable("HOME");
  if (home != nullptr) request.home = home;
  return load_config(request);
}

Request find_request(std::span<const Verb> verbs, std::span<const std::string> words) {
  if (words.empty() || words[0] == "--help" || words[0] == "-h") return {};
  if (words[0] == "--version" || words[0] == "-V") return {Request::Kind::version, nullptr, {}};
  auto verb = std::ranges::find(verbs, words[0], &Verb::name);
  auto rest = words.subspan(1);
  if (verb == verbs.end()) {
    const bool is_option = words[0].starts_with("-");
    std::error_code ignored;
    const bool is_file = words[0].ends_with(".yaml") || words[0].ends_with(".yml") ||
                         std::filesystem::exists(words[0], ignored);
    verb = std::ranges::find(verbs, std::string_view("train"), &Verb::name);
    rest = words;
    if (verb == verbs.end() || !(is_option || is_file)) {
      std::vector<std::string_view> names;
      for (const Verb& other : verbs) names.push_back(other.name);
      const std::string_view nearest = nearest_word(words[0], names);
      fail(ExitCode::usage, "\"{}\" is neither a verb nor a file{}; ptrain --help lists the verbs", words[0],
           nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest));
    }
  }
  for (const std::string& word : rest) {
    if (word == "--") break;
    if (word == "--help" || word == "-h") return {Request::Kind::verb_help, &*verb, {}};
  }
  return {Request::Kind::verb, &*verb, rest};
}

}  // namespace ptrain
