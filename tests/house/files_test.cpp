// Habits that a file shows by itself: its length, its opening sentence, no environment below launch/, and
// that each header compiles alone.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "src/io/json.h"
#include "tests/house/tree.h"
#include "tests/support/program.h"

namespace ptrain::house {
namespace {

const std::filesystem::path root = PTRAIN_SOURCE;
constexpr size_t most_lines = 400;

TEST(Files, NoneIsLongerThan400Lines) {
  for (const SourceFile& file : read_tree(root)) EXPECT_LE(file.lines.size(), most_lines) << file.path;
}

TEST(Files, EachHeaderOpensWithASentenceAndIsGuarded) {
  for (const SourceFile& file : read_tree(root, {"kernels", "parallel", "src", "launch", "tests"})) {
    if (!is_header(file.path)) continue;
    ASSERT_FALSE(file.lines.empty()) << file.path;
    EXPECT_TRUE(file.lines[0].starts_with("// ")) << file.path << ": says not what it is";
    EXPECT_TRUE(std::ranges::find(file.lines, "#pragma once") != file.lines.end()) << file.path;
  }
}

/// Whether a line calls that function, in code and not in a comment.
bool calls(const std::string& line, const std::string& function) {
  const size_t comment = line.find("//");
  const size_t at = line.substr(0, comment).find(function + "(");
  return at != std::string::npos && (at == 0 || (!std::isalnum(line[at - 1]) && line[at - 1] != '_'));
}

TEST(Files, OnlyLaunchReadsTheEnvironmentOrEndsTheProcess) {
  for (const SourceFile& file : read_tree(root, {"kernels", "parallel", "src"})) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const char* function :
           {"getenv", "secure_getenv", "setenv", "exit", "std::abort", "system", "popen"}) {
        EXPECT_FALSE(calls(file.lines[i], function)) << file.path << ":" << i + 1 << ": " << function;
      }
    }
  }
  EXPECT_TRUE(calls("  std::getenv(\"HOME\");", "getenv"));
  EXPECT_FALSE(calls("  // getenv(\"HOME\")", "getenv"));
  EXPECT_FALSE(calls("  MPI_Errhandler_exit(1);", "exit"));
}

TEST(Files, NothingNamesItselfManagerOrUtils) {
  for (const SourceFile& file : read_tree(root)) {
    for (const char* word : {"manager", "utils", "helper"}) {
      EXPECT_EQ(file.path.find(word), std::string::npos) << file.path;
    }
  }
}

/// The name of a type that this line of namespace scope defines, or empty.
std::string type_defined_by(const std::string& line) {
  if (line.starts_with(" ")) return "";
  std::istringstream words(line);
  std::string word, name;
  const auto may_come_before = [&] {
    return word.empty() || word == "template" || word == "enum" || word.starts_with("<") ||
           word.ends_with(">");
  };
  while (may_come_before() && words >> word) {
  }
  if (word != "struct" && word != "class") return line.starts_with("enum ") ? word : "";
  words >> name;
  const bool is_definition = line.find('{') != std::string::npos && line.find('(') == std::string::npos;
  return is_definition ? name.substr(0, name.find('<')) : "";
}

/// Two of one name in one program are undefined behaviour, which no linker reports.
TEST(Files, EachTypeIsDefinedOnce) {
  const std::set<std::string> alternatives = {"ptrain::cuda::CudnnAttention"};
  std::map<std::string, std::string> defined_in;
  for (const SourceFile& file : read_tree(root, {"kernels", "parallel", "src", "launch", "tests/support"})) {
    std::vector<std::string> spaces;
    for (const std::string& line : file.lines) {
      if (line.starts_with("namespace ") && line.ends_with("{"))
        spaces.push_back(line.substr(10, line.find(' ', 10) - 10));
      else if (line.starts_with("}  // namespace"))
        spaces.pop_back();
      const std::string type = type_defined_by(line);
      if (type.empty() || std::ranges::find(spaces, "{") != spaces.end()) continue;
      std::string name;
      for (const std::string& space : spaces) name += space + "::";
      const auto [it, is_new] = defined_in.emplace(name + type, file.path);
      EXPECT_TRUE(is_new || it->second == file.path || alternatives.contains(it->first))
          << it->first << ": in " << it->second << " and in " << file.path;
    }
  }
  EXPECT_GT(defined_in.size(), 300u);
  EXPECT_EQ(type_defined_by("struct Box {"), "Box");
  EXPECT_EQ(type_defined_by("enum class Kind : uint8_t { a };"), "Kind");
  EXPECT_EQ(type_defined_by("template <class T> struct Types<float> {"), "Types");
  EXPECT_EQ(type_defined_by("class Later;"), "");
}

/// Headers that some .cpp includes before anything else: a build with -Dunity=off compiles them alone.
std::set<std::string> compiled_alone_by_the_build(const std::vector<SourceFile>& files) {
  std::set<std::string> names;
  for (const SourceFile& file : files) {
    if (file.path.ends_with(".cpp") && !file.includes.empty() && !file.includes[0].is_angled) {
      names.insert(file.includes[0].name);
    }
  }
  return names;
}

/// The compiler and its include paths, from what meson wrote.
std::vector<std::string> compiler_call() {
  std::vector<std::string> words;
  std::set<std::string> seen;
  for (const Json& entry : read_json(std::filesystem::path(PTRAIN_BUILD) / "compile_commands.json")) {
    std::istringstream command(entry["command"].get<std::string>());
    std::string word;
    command >> word;
    if (word.ends_with("ccache")) command >> word;
    if (!entry["file"].get<std::string>().ends_with(".cpp")) continue;
    if (words.empty())
      words = {word, "-std=c++20", "-fsyntax-only", "-march=native", "-I" + root.string(), "-I" PTRAIN_BUILD};
    while (command >> word) {
      if (word == "-isystem" || word == "-I") {
        std::string path;
        command >> path;
        word += path;
      }
      const bool is_path = word.starts_with("-I/") || word.starts_with("-isystem/");
      if (is_path && seen.insert(word).second) words.push_back(word);
    }
  }
  return words;
}

TEST(Files, EachHeaderCompilesAlone) {
  const std::vector<SourceFile> files = read_tree(root);
  const std::set<std::string> done = compiled_alone_by_the_build(files);
  const std::vector<std::string> call = compiler_call();
  ASSERT_FALSE(call.empty());
  const TemporaryDirectory directory;
  size_t headers = 0;
  for (const SourceFile& file : files) {
    if (!file.path.ends_with(".h") || done.contains(file.path)) continue;
    ++headers;
    const std::string unit = directory.path() / "alone.cpp";
    std::ofstream(unit) << "#include \"" << file.path << "\"\n";
    std::vector<std::string> words = call;
    words.push_back(unit);
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.code, 0) << file.path << " does not compile alone:\n" << result.err;
  }
  RecordProperty("headers", static_cast<int>(headers));
}

TEST(Files, AHeaderThatNeedsAnotherIsFound) {
  const TemporaryDirectory directory;
  const std::string unit = directory.path() / "alone.cpp";
  std::ofstream(unit) << "inline std::string text();\n";
  std::vector<std::string> words = compiler_call();
  words.push_back(unit);
  EXPECT_NE(run_program(words).code, 0);
}

}  // namespace
}  // namespace ptrain::house
