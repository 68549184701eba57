#include "src/data/row_encoding.h"

#include <gtest/gtest.h>

#include <fstream>

#include "parallel/comm/self_comm.h"
#include "parallel/comm/thread_comm.h"
#include "src/data/show_rows.h"
#include "src/io/json.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

/// Everything that a file gives, or the message.
std::string documents_of(const std::filesystem::path& path, const RowEncoder& encoder, int ranks = 1) {
  std::string text;
  try {
    run_thread_ranks(ranks, [&](Communicator& comm) {
      const auto dataset = open_dataset({.files = {path.string()}, .vocabulary_size = 96, .threads = 2},
                                        row_encoding(encoder), comm);
      if (comm.rank() != 0) return;
      for (int64_t i = 0; i < dataset->size(); ++i) {
        std::vector<int32_t> ids(static_cast<size_t>(dataset->length(i))), labels(ids.size());
        dataset->read(i, 0, ids, labels);
        for (size_t t = 0; t < ids.size(); ++t) text += fmt::format("{}/{} ", ids[t], labels[t]);
        text += "| ";
      }
    });
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return text;
}

TEST(RowEncoding, RowsOfIdsNeedNoTokenizer) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  put(path,
      "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 9]}\r\n\n{\"input_ids\": [1]}\n{\"input_ids\": []}");
  const RowEncoder encoder(nullptr, ModelText{}, MaskPrompt::yes, 96);
  for (const int ranks : {1, 4}) {
    EXPECT_EQ(documents_of(path, encoder, ranks), "5/-100 6/6 7/9 | 1/1 | | ");
  }
}

TEST(RowEncoding, BrokenRowsAreNamedByFileLineAndColumn) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  const RowEncoder encoder(nullptr, ModelText{}, MaskPrompt::yes, 96);
  const std::string good = "{\"input_ids\": [5, 6]}\n";
  struct Case {
    std::string second_row;
    std::string begin;  // of the message, behind file:2
  };
  const std::vector<Case> cases = {
      {"{\"input_ids\": [5, 6}", ":20: not valid JSON: "},
      {"{\"input_ids\": [5, 6]} x", ":23: not valid JSON: "},
      {"{\"input_ids\": [5], \"input_ids\": [6]}", ": the name \"input_ids\" appears twice in one object"},
      {std::string(70, '['), ": JSON nested deeper than 64 levels"},
      {"[5, 6]", ": "},
      {"{\"text\": \"a\"}", ": "},
      {"{\"input_ids\": [5, 96]}", ": "},
      {"{\"input_ids\": [5, -1]}", ": "},
      {"{\"input_ids\": [5, 2.5]}", ": "},
      {"{\"input_ids\": [5, 99999999999999999999]}", ": "},
      {"{\"input_ids\": [5], \"labels\": [5, 6]}", ": "},
      {"{\"input_ids\": [5], \"labels\": [-1]}", ": "},
  };
  for (const Case& c : cases) {
    put(path, good + c.second_row + "\n" + good);
    const std::string message = documents_of(path, encoder);
    const std::string begin = path.string() + ":2" + c.begin;
    EXPECT_EQ(message.substr(0, begin.size()), begin) << c.second_row << ": " << message;
    EXPECT_GT(message.size(), begin.size() - 1);
  }
  put(path, "{\"foo\": 1}\n" + good);
  EXPECT_EQ(documents_of(path, encoder).find(path.string() + ":1: "), 0u);
}

TEST(RowEncoding, TheGoldenRowsComeBack) {
  const RowEncoder encoder(nullptr, ModelText{}, MaskPrompt::yes, 96);
  const auto path = fixture("golden/llama-packed/train.jsonl");
  const auto comm = make_self_communicator();
  const auto dataset =
      open_dataset({.files = {path.string()}, .vocabulary_size = 96}, row_encoding(encoder), *comm);
  const Json golden = read_json(fixture("golden/llama-packed/packed.json")).at("documents");
  ASSERT_EQ(dataset->size(), std::ssize(golden));
  for (int64_t i = 0; i < dataset->size(); ++i) {
    EXPECT_EQ(dataset->length(i), golden[static_cast<size_t>(i)].at("length").get<int64_t>());
  }
}

TEST(ShowRows, MarksWhatIsSupervised) {
  const auto tokenizer = Tokenizer::load(fixture("tokenizers/gpt2_bytelevel"));
  const std::vector<int32_t> prompt = tokenizer->encode("Two and two? ", Special::none);
  const std::vector<int32_t> answer = tokenizer->encode("\"Four\"\n", Special::none);
  Document document{prompt, std::vector<int32_t>(prompt.size(), not_supervised)};
  document.ids.insert(document.ids.end(), answer.begin(), answer.end());
  document.labels.insert(document.labels.end(), answer.begin(), answer.end());
  EXPECT_EQ(
      show({document, "a.jsonl:3"}, tokenizer.get()),
      fmt::format("a.jsonl:3: {} tokens, {} supervised\n  . \"Two and two? \"\n  + \"\\\"Four\\\"\\n\"\n",
                  document.ids.size(), answer.size()));
  EXPECT_EQ(show({{{5, 6, 7, 8}, {5, 6, -100, 9}}, "b"}, nullptr),
            "b: 4 tokens, 2 supervised\n  . 5\n  + 6\n  . 7\n  * 8 -> 9\n");
  EXPECT_EQ(show({{}, "c"}, nullptr), "c: 0 tokens, 0 supervised\n");
}

TEST(ShowRows, TakesTheFirstDocumentsOfTextAndOfTokenFiles) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.jsonl";
  std::string rows;
  for (int i = 0; i < 20'000; ++i) rows += fmt::format("{{\"input_ids\": [{}, {}]}}\n", i % 96, i / 1000);
  put(path, rows + "broken\n");
  const RowEncoder encoder(nullptr, ModelText{}, MaskPrompt::yes, 96);
  const DatasetOptions options{.files = {path.string()}, .vocabulary_size = 96, .threads = 2};
  const auto shown = first_documents(options, row_encoding(encoder), 7000);  // from several blocks, not all
  ASSERT_EQ(shown.size(), 7000u);
  EXPECT_EQ(shown[6999].where, path.string() + ":7000");
  EXPECT_EQ(shown[6999].document.ids, (std::vector<int32_t>{6999 % 96, 6}));

  put(path, rows);
  const auto comm = make_self_communicator();
  const auto out = directory.path() / "a.h5";
  preprocess(options, row_encoding(encoder), out, *comm);
  const DatasetOptions tokens{.files = {out.string()}, .vocabulary_size = 96};
  const auto stored = first_documents(tokens, row_encoding(encoder), 100'000);
  ASSERT_EQ(stored.size(), 20'000u);
  EXPECT_EQ(stored[6999].document.ids, shown[6999].document.ids);
}

}  // namespace
}  // namespace ptrain
