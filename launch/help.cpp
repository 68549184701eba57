// What --help prints: a short page of all verbs, and one of each verb.
#include <algorithm>
#include <vector>

#include "kernels/base/error.h"
#include "launch/cli.h"

namespace ptrain {
namespace {

struct Line {
  std::string left;
  std::string_view right;
};

/// Two columns, the second aligned.
std::string columns(const std::vector<Line>& lines) {
  size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.left.size());
  std::string text;
  for (const Line& line : lines) text += fmt::format("  {:<{}}  {}\n", line.left, width, line.right);
  return text;
}

}  // namespace

/// Training has no name on the command line.
std::string invocation(const Verb& verb) {
  std::string text = "ptrain";
  if (verb.name != "train") text += fmt::format(" {}", verb.name);
  if (!verb.usage.empty()) text += fmt::format(" {}", verb.usage);
  return text;
}

std::string help_text(std::span<const Verb> verbs) {
  std::string text =
      "ptrain trains transformers on a tensor x pipeline x data grid of MPI ranks.\n\n"
      "Usage\n"
      "  mpirun -np N ptrain CONFIG [--key value ...]\n"
      "  ptrain VERB ...\n\nVerbs\n";
  std::vector<Line> lines;
  for (const Verb& verb : verbs) lines.push_back({std::string(verb.name), verb.summary});
  text += columns(lines);
  text += "\nOptions\n";
  text += columns({{"VERB --help", "the verb's own page"},
                   {"--version", "version, and what is built in"},
                   {"--key value", "any key of the configuration by its dotted path, --batch.micro 2"}});
  return text;
}

std::string help_text(const Verb& verb) {
  std::string text = fmt::format("{}\n\nUsage\n  {}\n", verb.summary, invocation(verb));
  std::vector<Line> lines;
  if (verb.takes == Takes::file || verb.takes == Takes::file_keys) {
    lines.push_back({"CONFIG, --config FILE", "the configuration, YAML"});
  }
  for (const Flag& flag : verb.flags) {
    lines.push_back(
        {fmt::format("--{}{}{}", flag.name, flag.value.empty() ? "" : " ", flag.value), flag.help});
  }
  if (verb.takes == Takes::keys || verb.takes == Takes::file_keys) {
    lines.push_back({"--model DIR", "short for --model.path"});
    lines.push_back({"--data FILE", "short for --data.train"});
    lines.push_back({"--seed N", "short for --train.seed"});
  }
  if (verb.takes != Takes::nothing) {
    lines.push_back(
        {"--key value", "any key of the configuration by its dotted path (ptrain config-schema)"});
  }
  if (!lines.empty()) text += "\nOptions\n" + columns(lines);
  if (!verb.details.empty()) text += fmt::format("\n{}\n", verb.details);
  return text;
}

}  // namespace ptrain
