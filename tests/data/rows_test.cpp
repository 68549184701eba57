#include "src/data/rows.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "src/io/json.h"
#include "tests/data/row_support.h"

namespace ptrain {
namespace {

TEST(Rows, AreRecognisedByTheirKeys) {
  const RowEncoder encoder(nullptr, ModelText(), MaskPrompt::yes, vocab_size);
  const std::pair<const char*, RowShape> cases[] = {
      {R"({"text": "a"})", RowShape::text},
      {R"({"input": "a", "id": 7})", RowShape::input},
      {R"({"prompt": "a", "completion": "b", "source": "x"})", RowShape::prompt_completion},
      {R"({"instruction": "a", "input": "b", "output": "c"})", RowShape::instruction},
      {R"({"instruction": "a", "output": "c"})", RowShape::instruction},
      {R"({"messages": []})", RowShape::messages},
      {R"({"conversations": []})", RowShape::conversations},
      {R"({"input_ids": [1], "labels": [1]})", RowShape::ids},
      {R"({"input_ids": [1], "attention_mask": [1]})", RowShape::ids},
  };
  for (const auto& [row, shape] : cases)
    EXPECT_EQ(encoder.shape_of(parse_json(row, "r"), "f:1"), shape) << row;
  EXPECT_EQ(name_of(RowShape::prompt_completion), R"({"prompt", "completion"})");
}

TEST(Rows, OfNoShapeOrTwoAreRefusedWithTheirPlace) {
  const RowEncoder encoder(nullptr, ModelText(), MaskPrompt::yes, vocab_size);
  for (const char* row : {R"({"txt": "a"})", R"({})", R"([1])", R"({"text": "a", "messages": []})",
                          R"({"prompt": "a"})", R"({"input": "a", "output": "b"})", R"({"instruction": "a"})",
                          R"({"labels": [1]})", R"({"text": "a", "input": "b"})"}) {
    const std::string message = error_of([&] { encoder.shape_of(parse_json(row, "r"), "data/x.jsonl:12"); });
    EXPECT_TRUE(message.starts_with("data/x.jsonl:12: ")) << row << ": " << message;
  }
  const std::string mixed = error_of([&] {
    encoder.encode(Json{{"input_ids", {1}}}, RowShape::messages, "x.jsonl:3");
  });
  EXPECT_EQ(mixed,
            "x.jsonl:3: this row is {\"input_ids\", \"labels\"}, those before it are {\"messages\"}; a file "
            "holds rows "
            "of one shape");
}

TEST(Rows, OfTextAreSupervisedThroughoutAndEndWithOneEos) {
  const auto llama = load("llama2_style");
  const auto smollm = load("smollm_style");
  const ModelText text = model_with(*llama, "</s>");
  EXPECT_EQ(encoded(*llama, text, {{"text", "Hello world"}}), "⟦<s> Hello world</s>⟧");
  EXPECT_EQ(encoded(*llama, text, {{"input", "Hello</s>"}}), "⟦<s> Hello</s>⟧");
  EXPECT_EQ(encoded(*llama, text, {{"text", ""}}), "⟦<s></s>⟧");
  EXPECT_EQ(encoded(*smollm, model_with(*smollm, "<|endoftext|>"), {{"text", "Hello"}}),
            "⟦Hello<|endoftext|>⟧");
  EXPECT_EQ(encoded(*smollm, ModelText(), {{"text", "Hello"}}), "⟦Hello⟧");
}

TEST(Rows, OfPromptAndCompletionSuperviseTheCompletionAndEos) {
  const auto llama = load("llama2_style");
  const ModelText text = model_with(*llama, "</s>");
  const Json row = {{"prompt", "2+2="}, {"completion", "4"}};
  const RowEncoder encoder(llama.get(), text, MaskPrompt::yes, vocab_size);
  const Document document = encoder.encode(row, RowShape::prompt_completion, "f:1");
  std::vector<int32_t> expected = llama->encode("2+2=", Special::add);
  const size_t prompt = expected.size();
  llama->encode_to("4", Special::none, expected);
  expected.push_back(2);
  EXPECT_EQ(document.ids, expected);
  for (size_t t = 0; t < expected.size(); ++t) {
    EXPECT_EQ(document.labels[t], t < prompt ? not_supervised : expected[t]);
  }
  EXPECT_EQ(encoded(*llama, text, {{"prompt", "a</s>"}, {"completion", ""}}), "<s> a</s>⟦</s>⟧");
  EXPECT_EQ(encoded(*llama, text, row, MaskPrompt::no).find("⟦"), 0u);
}

TEST(Rows, OfInstructionsUseTheTemplateOrTheAlpacaWording) {
  const auto smollm = load("smollm_style");
  const Json full = {{"instruction", "Add."}, {"input", "1 2"}, {"output", "3"}};
  const Json bare = {{"instruction", "Say hi."}, {"input", ""}, {"output", "hi"}};
  const ModelText plain = model_with(*smollm, "<|endoftext|>");
  EXPECT_EQ(encoded(*smollm, plain, full),
            "Below is an instruction that describes a task, paired with an input that provides further "
            "context. Write "
            "a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 "
            "2\n\n### "
            "Response:\n⟦3<|endoftext|>⟧");
  EXPECT_EQ(
      encoded(*smollm, plain, bare),
      "Below is an instruction that describes a task. Write a response that appropriately completes the "
      "request.\n\n### Instruction:\nSay hi.\n\n### Response:\n⟦hi<|endoftext|>⟧");
  const ModelText chatml = model_with(*smollm, "<|im_end|>", "chatml");
  EXPECT_EQ(
      encoded(*smollm, chatml, full),
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAdd.\n\n1 2<|im_end|>\n"
      "<|im_start|>assistant\n⟦3<|im_end|>⟧\n");
}

TEST(Rows, OfIdsAreTakenAsTheyAre) {
  const RowEncoder encoder(nullptr, ModelText(), MaskPrompt::yes, 100);
  const Document labelled =
      encoder.encode(Json{{"input_ids", {5, 6, 99}}, {"labels", {-100, 0, 99}}}, RowShape::ids, "f:1");
  EXPECT_EQ(labelled.ids, (std::vector<int32_t>{5, 6, 99}));
  EXPECT_EQ(labelled.labels, (std::vector<int32_t>{-100, 0, 99}));
  const Document bare = encoder.encode(Json{{"input_ids", {5, 6}}}, RowShape::ids, "f:1");
  EXPECT_EQ(bare.labels, bare.ids);
  const RowEncoder unmasked(nullptr, ModelText(), MaskPrompt::no, 100);
  EXPECT_EQ(unmasked.encode(Json{{"input_ids", {5, 6}}, {"labels", {-100, 7}}}, RowShape::ids, "f:1").labels,
            (std::vector<int32_t>{5, 7}));

  const std::pair<const char*, const char*> cases[] = {
      {R"({"input_ids": [1, 100]})",
       "f:2: input_ids[1] is 100, outside of the vocabulary of 100 tokens; were these ids made for another "
       "model?"},
      {R"({"input_ids": [-1]})", "f:2: input_ids[0] is -1"},
      {R"({"input_ids": [-100]})", "f:2: input_ids[0] is -100"},
      {R"({"input_ids": [18446744073709551615]})", "f:2: input_ids[0] is 18446744073709551615"},
      {R"({"input_ids": [1.0]})", "f:2: input_ids[0] is a number with a fraction"},
      {R"({"input_ids": ["1"]})", "f:2: input_ids[0] is a string"},
      {R"({"input_ids": 1})", "f:2: \"input_ids\" is an integer"},
      {R"({"input_ids": [1], "labels": [100]})", "f:2: labels[0] is 100"},
      {R"({"input_ids": [1], "labels": [1, 2]})", "f:2: \"labels\" has 2 entries, \"input_ids\" has 1"},
      {R"({"input_ids": [1, 2], "attention_mask": [1, 0]})", "f:2: \"attention_mask\" has zeros"},
  };
  for (const auto& [source, message] : cases) {
    const std::string found =
        error_of([&] { encoder.encode(parse_json(source, "r"), RowShape::ids, "f:2"); });
    EXPECT_TRUE(found.starts_with(message)) << source << " gave " << found;
  }
}

TEST(Rows, OfTextNeedATokenizerThatFitsTheModel) {
  const RowEncoder without(nullptr, ModelText(), MaskPrompt::yes, 100);
  EXPECT_TRUE(error_of([&] {
                without.encode(Json{{"text", "a"}}, RowShape::text, "f:1");
              }).starts_with("f:1: a row of text needs a tokenizer"));
  const auto tokenizer = load("smollm_style");
  const RowEncoder small(tokenizer.get(), ModelText(), MaskPrompt::yes, 10);
  EXPECT_TRUE(
      error_of([&] {
        small.encode(Json{{"text", "a"}}, RowShape::text, "f:1");
      })
          .starts_with(
              "f:1: the tokenizer gives id 67 (\"a\"), outside of the model's vocabulary of 10 tokens"));
}

TEST(Rows, GiveTheSameDocumentFromManyThreads) {
  const auto tokenizer = load("smollm_style");
  const RowEncoder encoder(tokenizer.get(), model_with(*tokenizer, "<|im_end|>", "chatml"), MaskPrompt::yes,
                           vocab_size);
  const Json row = chat(
      {{"user", "What is 2+2?"}, {"assistant", "It is 4."}, {"user", "Why?"}, {"assistant", "Because."}});
  const Document expected = encoder.encode(row, RowShape::messages, "f:1");
  std::vector<std::thread> threads;
  std::atomic<int> differing = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20; ++k) {
        const Document document = encoder.encode(row, RowShape::messages, "f:1");
        if (document.ids != expected.ids || document.labels != expected.labels) ++differing;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(differing, 0);
}

TEST(Rows, TheDigestChangesWithWhatChangesTokens) {
  const auto tokenizer = load("smollm_style");
  const ModelText text = model_with(*tokenizer, "<|im_end|>", "chatml");
  const auto digest = [&](const ModelText& model, MaskPrompt mask) {
    return RowEncoder(tokenizer.get(), model, mask, vocab_size).digest();
  };
  EXPECT_EQ(digest(text, MaskPrompt::yes), digest(text, MaskPrompt::yes));
  EXPECT_NE(digest(text, MaskPrompt::yes), digest(text, MaskPrompt::no));
  EXPECT_NE(digest(text, MaskPrompt::yes),
            digest(model_with(*tokenizer, "<|im_end|>", "llama2"), MaskPrompt::yes));
  EXPECT_NE(digest(text, MaskPrompt::yes),
            digest(model_with(*tokenizer, "[SEP]", "chatml"), MaskPrompt::yes));
}

}  // namespace
}  // namespace ptrain
