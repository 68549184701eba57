#include "src/data/special_tokens.h"

#include <gtest/gtest.h>

#include "src/io/file.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

TEST(SpecialTokens, AreReadInTheOrderOfTheFile) {
  const TemporaryDirectory directory;
  write_text(directory.path() / "t.json", R"({"tokens": ["[STOP]", "[SEP]", " é"]})");
  EXPECT_EQ(read_special_tokens(directory.path() / "t.json"),
            std::vector<std::string>({"[STOP]", "[SEP]", " é"}));
}

TEST(SpecialTokens, AWrongFileIsRefusedWithItsPlace) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "t.json";
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {R"(["[SEP]"])", "is an array, expected {\"tokens\""},
      {R"({})", "tokens"},
      {R"({"tokens": []})", "\"tokens\" is empty"},
      {R"({"tokens": "[SEP]"})", "\"tokens\" is a string"},
      {R"({"tokens": ["a", 3]})", "tokens[1]"},
      {R"({"tokens": ["a", ""]})", "tokens[1] is empty"},
      {R"({"tokens": ["a", "b", "a"]})", "tokens[2], \"a\", is there twice"},
      {R"({"tokens": ["a"], "token": []})", "unknown key \"token\""},
      {R"({"tokens": ["a")", "t.json:1:"},
  };
  for (const auto& c : cases) {
    write_text(path, c.text);
    try {
      read_special_tokens(path);
      ADD_FAILURE() << c.text << " was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), ExitCode::input);
      EXPECT_TRUE(message.starts_with(path.string())) << message;
      EXPECT_NE(message.find(c.says), std::string::npos) << message << "\nexpected: " << c.says;
    }
  }
  EXPECT_THROW(read_special_tokens(directory.path() / "none.json"), Error);
}

}  // namespace
}  // namespace ptrain
