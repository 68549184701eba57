// tokenize and preprocess from outside: what they print and write.
#include <gtest/gtest.h>

#include <fstream>

#include "src/data/token_file.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/files.h"
#include "tests/support/program.h"

namespace ptrain {
namespace {

ProgramResult ptrain_with(std::vector<std::string> words) {
  words.insert(words.begin(), PTRAIN_PROGRAM);
  return run_program(words);
}

std::vector<Json> rows_of(const std::string& text) {
  std::vector<Json> rows;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) rows.push_back(parse_json(std::string_view(text).substr(begin, end - begin), "row"));
    begin = end + 1;
  }
  return rows;
}

TEST(TokenizeVerb, GivesTheReferencesIdsAndTexts) {
  const TemporaryDirectory directory;
  for (const char* kind : {"llama2_style", "smollm_style"}) {
    const auto model = fixture("tokenizers") / kind;
    const auto cases = rows_of(read_text(model / "cases.jsonl", 1 << 24));
    std::string ids_text;
    for (const Json& row : cases) ids_text += row.at("ids").dump() + "\n";
    const auto ids_path = directory.path() / "ids.jsonl";
    put(ids_path, ids_text);
    struct Case {
      std::string file;
      std::vector<std::string> flags;
      const char* key;
    };
    const std::string texts = model / "cases.jsonl";
    const std::vector<Case> runs = {{texts, {}, "ids"},
                                    {texts, {"--no-special"}, "ids_no_special"},
                                    {ids_path, {"--decode", "--no-special"}, "decoded"},
                                    {ids_path, {"--decode"}, "decoded_skip_special"}};
    for (const Case& run : runs) {
      std::vector<std::string> words = {"tokenize", "--model", model, run.file};
      words.insert(words.end(), run.flags.begin(), run.flags.end());
      const ProgramResult result = ptrain_with(words);
      ASSERT_EQ(result.code, 0) << result.err;
      EXPECT_EQ(result.err, "");
      const auto rows = rows_of(result.out);
      ASSERT_EQ(rows.size(), cases.size());
      for (size_t i = 0; i < rows.size(); ++i) {
        const Json& found = rows[i].is_object() ? rows[i].at("text") : rows[i];
        EXPECT_EQ(found, cases[i].at(run.key)) << kind << " " << run.key << " of case " << i;
      }
    }
  }
}

TEST(TokenizeVerb, LinesOfTextComeBack) {
  const TemporaryDirectory directory;
  const std::string model = fixture("tokenizers/llama3_style");
  const std::string text = "Hello, world!\n\n  two  blanks\nthe last without an end";
  put(directory.path() / "a.txt", text);
  const ProgramResult ids = ptrain_with({"tokenize", "--model", model, directory.path() / "a.txt"});
  EXPECT_EQ(ids.code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 4);
  EXPECT_EQ(ids.out.find_first_not_of("0123456789 \n"), std::string::npos) << ids.out;
  put(directory.path() / "b.txt", ids.out);
  const ProgramResult back =
      ptrain_with({"tokenize", "--decode", "--model", model, directory.path() / "b.txt"});
  EXPECT_EQ(back.out, text + "\n");
  EXPECT_EQ(ptrain_with({"tokenize", "--model", model}).out, "") << "no line, no ids";
}

TEST(TokenizeVerb, SaysWhatIsWrong) {
  const TemporaryDirectory directory;
  const std::string model = fixture("tokenizers/llama3_style");
  const std::string rows = directory.path() / "a.jsonl";
  const std::string ids = directory.path() / "ids.txt";
  put(rows, "{\"text\": \"a\"}\n\n{\"foo\": 1}\n");
  put(ids, "1 2\n3 four\n");
  struct Case {
    std::vector<std::string> words;
    int code;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"tokenize"}, 2, "--model is missing"},
      {{"tokenize", "--model", directory.path()}, 3, directory.path()},
      {{"tokenize", "--model", model, "no.txt"}, 3, "no.txt: no such file"},
      {{"tokenize", "--model", model, "no.jsonl"}, 3, "no.jsonl: cannot be opened"},
      {{"tokenize", "--model", model, rows}, 3, rows + ":3: \"text\" is missing"},
      {{"tokenize", "--model", model, "--decode", ids}, 3, ids + ":2: \"four\" is not an id"},
      {{"tokenize", "--model", model, "--decode", rows}, 3, rows + ":1: "},
      {{"tokenize", "--model", model, "--bogus"}, 2, "--bogus"},
  };
  for (const Case& c : cases) {
    const ProgramResult result = ptrain_with(c.words);
    EXPECT_EQ(result.code, c.code) << result.err;
    EXPECT_NE(result.err.find(c.message), std::string::npos) << result.err;
    EXPECT_LT(result.seconds, 5);
  }
}

class PreprocessVerb : public testing::Test {
 protected:
  PreprocessVerb() {
    const auto model = root() / "model";
    std::filesystem::create_directory(model);
    std::filesystem::copy(fixture("tokenizers/smollm_style/tokenizer.json"), model);
    std::filesystem::copy(fixture("chat_templates/chatml/tokenizer_config.json"), model);
    Json config = read_json(fixture("golden/llama-packed/config.json"));
    config["vocab_size"] = 3000;
    put(model / "config.json", config.dump());
    put(config_path(), fmt::format("model: {{path: {}}}\ndata: {{train: [{}]}}\n", model.string(),
                                   (root() / "rows.jsonl").string()));
    put(root() / "rows.jsonl",
        "{\"prompt\": \"Two and two? \", \"completion\": \"Four\"}\n{\"prompt\": \"a\", \"completion\": \"b "
        "c\"}\n");
  }
  std::filesystem::path root() const { return directory_.path(); }
  std::string config_path() const { return root() / "c.yaml"; }

 private:
  TemporaryDirectory directory_;
};

TEST_F(PreprocessVerb, WritesATokenFileAndShowsItsRows) {
  const std::string out = root() / "new folder" / "a.h5";
  const ProgramResult result = ptrain_with({"preprocess", config_path(), "--out", out, "--show", "1"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find(out + ": 2 documents, "), std::string::npos) << result.err;
  EXPECT_EQ(result.out.find(out + ": document 0: "), 0u) << result.out;
  EXPECT_NE(result.out.find("\n  . \"Two and two? \"\n  + \"Four"), std::string::npos) << result.out;
  const TokenFile file(out);
  EXPECT_EQ(file.size(), 2);
  EXPECT_EQ(file.supervision(), Supervision::mask);
  const ProgramResult all =
      ptrain_with({"preprocess", config_path(), "--out", out, "--data.mask_prompt", "false"});
  ASSERT_EQ(all.code, 0) << all.err;
  EXPECT_EQ(TokenFile(out).supervision(), Supervision::all);
}

TEST_F(PreprocessVerb, ShowsRowsWithoutWritingAny) {
  const ProgramResult result = ptrain_with({"preprocess", config_path(), "--show", "5"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.find((root() / "rows.jsonl").string() + ":1: "), 0u) << result.out;
  EXPECT_NE(result.out.find("rows.jsonl:2: "), std::string::npos);
}

TEST_F(PreprocessVerb, SaysWhatIsWrong) {
  const std::string bad = root() / "bad.jsonl";
  put(bad, "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"\n");
  struct Case {
    std::vector<std::string> words;
    int code;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{}, 2, "--out FILE.h5"},
      {{"--out", "a.bin"}, 2, "--out a.bin: the name must end in .h5"},
      {{"--out", "/proc/no/a.h5"}, 4, "/proc/no"},
      {{"--out", root() / "a.h5", "--data", bad}, 3, bad + ":2:15: not valid JSON"},
      {{"--out", root() / "a.h5", "--data", root() / "*.json"}, 3, "data.train: no file matches"},
      {{"--show", "-1"}, 2, "show"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> words = {"preprocess", config_path()};
    words.insert(words.end(), c.words.begin(), c.words.end());
    const ProgramResult result = ptrain_with(words);
    EXPECT_EQ(result.code, c.code) << result.err;
    EXPECT_NE(result.err.find(c.message), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_FALSE(std::filesystem::exists(root() / "a.h5"));
}

}  // namespace
}  // namespace ptrain
