#include "src/data/rows.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "src/data/chat_spans.h"
#include "src/data/chat_template/text.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

constexpr int64_t vocab_size = 5000;

std::unique_ptr<Tokenizer> load(std::string_view kind) {
  return Tokenizer::load(fixture("tokenizers") / kind);
}

/// A model whose EOS is `eos` and whose template, if any, is one of the fixtures'.
ModelText model_with(const Tokenizer& tokenizer, const std::string& eos, const std::string& chat = "") {
  ModelText text;
  text.eos = {eos, tokenizer.id_of(eos)};
  if (text.eos.id) text.eos_ids = {*text.eos.id};
  text.template_variables = {{"eos_token", eos}};
  if (chat.empty()) return text;
  const Json config = read_json(fixture("chat_templates") / chat / "tokenizer_config.json");
  text.chat_template = config["chat_template"].get<std::string>();
  text.chat_template_where = chat;
  for (const char* key : {"bos_token", "eos_token"}) {
    if (config[key].is_string()) text.template_variables[key] = config[key];
  }
  return text;
}

/// The text of a document with its supervised parts in brackets.
std::string shown(const Tokenizer& tokenizer, const Document& document) {
  EXPECT_EQ(document.ids.size(), document.labels.size());
  std::string out;
  std::vector<int32_t> run;
  for (size_t t = 0; t <= document.ids.size(); ++t) {
    const auto is_supervised = [&](size_t i) { return document.labels[i] != not_supervised; };
    if (t == document.ids.size() || (!run.empty() && is_supervised(t) != is_supervised(t - 1))) {
      const std::string text = tokenizer.decode(run, Skip::none);
      out += !run.empty() && is_supervised(t - 1) ? "⟦" + text + "⟧" : text;
      run.clear();
    }
    if (t == document.ids.size()) break;
    if (is_supervised(t)) {
      EXPECT_EQ(document.labels[t], document.ids[t]);
    }
    run.push_back(document.ids[t]);
  }
  return out;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "no error";
}

Json chat(std::initializer_list<std::pair<const char*, const char*>> turns) {
  Json messages = Json::array();
  for (const auto& [role, content] : turns) messages.push_back({{"role", role}, {"content", content}});
  return {{"messages", messages}};
}

/// The row's document with supervised parts in brackets.
std::string encoded(const Tokenizer& tokenizer, const ModelText& text, const Json& row,
                    MaskPrompt mask = MaskPrompt::yes) {
  const RowEncoder encoder(&tokenizer, text, mask, vocab_size);
  return shown(tokenizer, encoder.encode(row, encoder.shape_of(row, "f:1"), "f:1"));
}

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

TEST(Rows, OfChatsSuperviseTheAssistantsTurnsWithTheirEndWhateverTheTemplate) {
  const Json row = chat(
      {{"system", "Be brief."}, {"user", "2+2?"}, {"assistant", "4"}, {"user", "x3?"}, {"assistant", "12."}});
  struct Case {
    const char *kind, *eos, *chat, *expected;
  };
  const Case cases[] = {
      {"smollm_style", "<|im_end|>", "chatml",
       "<|im_start|>system\nBe "
       "brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧\n"
       "<|im_start|>user\nx3?<|im_end|>\n<|im_start|>assistant\n⟦12.<|im_end|>⟧\n"},
      {"llama3_style", "<|eot_id|>", "llama3",
       "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe "
       "brief.<|eot_id|><|start_header_id|>user"
       "<|end_header_id|>\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦4<|eot_id|>⟧"
       "<|start_header_id|>user<|end_header_id|>\n\nx3?<|eot_id|><|start_header_id|>assistant<|end_header_id|"
       ">\n\n"
       "⟦12.<|eot_id|>⟧"},
      {"llama2_style", "</s>", "llama2",
       "<s> [INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+2? [/INST]⟦4 </s>⟧<s> [INST] x3? [/INST]⟦12. </s>⟧"},
      {"llama2_style", "</s>", "mistral_like", "<s> [INST] 2+2?[/INST]⟦4</s>⟧[INST] x3?[/INST]⟦12.</s>⟧"},
      {"llama2_style", "</s>", "zephyr_like",
       "<|system|>\nBe brief.</s> \n<|user|>\n2+2?</s> \n<|assistant|>\n⟦4</s>⟧\n<|user|>\nx3?</s> "
       "\n<|assistant|>\n⟦12.</s>⟧\n"},
      {"llama2_style", "</s>", "alpaca_like",
       "<s> Be brief.\n\n### Instruction:\n2+2?\n\n### Response:\n⟦4</s>⟧\n\n### Instruction:\nx3?\n\n### "
       "Response:\n⟦12.</s>⟧"},
  };
  for (const Case& c : cases) {
    const auto tokenizer = load(c.kind);
    EXPECT_EQ(encoded(*tokenizer, model_with(*tokenizer, c.eos, c.chat), row), c.expected) << c.chat;
  }
}

/// Every golden chat that its template renders: as many turns as the assistant has messages, each holding the
/// message and the end of turn and nothing else but blanks.
TEST(Rows, TurnsOfAllGoldenChatsHoldTheMessageAndItsEnd) {
  int num_turns = 0;
  for (const char* name : {"alpaca_like", "chatml", "llama2", "llama3", "mistral_like", "zephyr_like"}) {
    const bool is_llama3 = std::string_view(name) == "llama3";
    const auto tokenizer = load(is_llama3 ? "llama3_style" : "llama2_style");
    const std::string eos = is_llama3                            ? "<|eot_id|>"
                            : std::string_view(name) == "chatml" ? "<|im_end|>"
                                                                 : "</s>";
    const ModelText text = model_with(*tokenizer, eos, name);
    const ChatTemplate chat_template = parse_chat_template(text);
    const RowEncoder encoder(tokenizer.get(), text, MaskPrompt::yes, vocab_size);
    std::ifstream file(fixture("chat_templates") / name / "cases.jsonl");
    for (std::string line; std::getline(file, line);) {
      const Json golden = parse_json(line, "cases.jsonl");
      if (golden.contains("error") || golden["add_generation_prompt"].get<bool>() ||
          golden["messages"].empty())
        continue;
      SCOPED_TRACE(line.substr(0, 250));
      const Json& messages = golden["messages"];
      const ChatSetting setting{chat_template, text, *tokenizer, std::nullopt};
      const RenderedChat chat = render_with_turns(setting, messages, text.template_variables, "f:1");
      EXPECT_EQ(chat.text, golden["rendered"].get<std::string>());
      size_t turn = 0;
      for (const Json& message : messages) {
        if (message["role"] != "assistant") continue;
        ASSERT_LT(turn, chat.turns.size());
        const TextSpan span = chat.turns[turn++];
        ++num_turns;
        const std::string own = chat.text.substr(span.begin, span.end - span.begin);
        if (!message.contains("content")) {
          EXPECT_EQ(own.find("get_weather") != own.npos, chat.text.find("get_weather") != own.npos);
          EXPECT_TRUE(own.ends_with(eos));
          continue;
        }
        EXPECT_TRUE(own.ends_with(eos)) << own;
        const std::string_view inner = std::string_view(own).substr(0, own.size() - eos.size());
        const std::string content = message["content"].get<std::string>();
        EXPECT_EQ(jinja::strip(inner, jinja::Side::both), jinja::strip(content, jinja::Side::both));
      }
      EXPECT_EQ(turn, chat.turns.size());

      const Json row = {{"messages", messages}};
      const Document document = encoder.encode(row, RowShape::messages, "f:1");
      EXPECT_EQ(document.ids, tokenizer->encode(chat.text, Special::none));
      // The end of turn is supervised once a turn, unless the texts themselves hold it.
      const auto ends = std::count(document.labels.begin(), document.labels.end(), *text.eos.id);
      EXPECT_EQ(static_cast<size_t>(ends), turn);
    }
  }
  EXPECT_GT(num_turns, 60);
}

ModelText with_template(const Tokenizer& tokenizer, const std::string& eos, const std::string& source) {
  ModelText text = model_with(tokenizer, eos);
  text.chat_template = source;
  text.chat_template_where = "t";
  return text;
}

TEST(Rows, OfChatsFollowTemplatesWithHabitsOfTheirOwn) {
  const auto tokenizer = load("smollm_style");
  const std::string head = "{% for m in messages %}<|im_start|>{{ m.role }}\n";
  const std::string prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  struct Case {
    const char* what;
    std::string source, expected;
  };
  const Case cases[] = {
      {"cuts the reasoning off: found by prefixes",
       head + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + prompt,
       "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦ans<|im_end|>⟧\n"},
      {"no generation prompt: the model writes the header too",
       "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}",
       "user: q<|im_end|>⟦assistant: t</think>ans<|im_end|>⟧"},
      {"no end of turn: the next header is none",
       "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}{% endfor %}"
       "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}",
       "<|im_start|>user q<|im_start|>assistant⟦ t</think>ans⟧"},
      {"an empty thought before the last answer is the model's to write",
       head + "{% if loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + prompt,
       "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦<think></think>t</think>ans<|im_end|>⟧\n"},
      {"the generation prompt says more than the header",
       head + "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
              "%}<|im_start|>assistant\n<think>{% endif %}",
       "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦t</think>ans<|im_end|>⟧\n"},
  };
  const Json row = chat({{"user", "q"}, {"assistant", "t</think>ans"}});
  for (const Case& c : cases) {
    EXPECT_EQ(encoded(*tokenizer, with_template(*tokenizer, "<|im_end|>", c.source), row), c.expected)
        << c.what;
  }
}

TEST(Rows, OfChatsWhoseTurnsCannotBeFoundAreRefused) {
  const auto tokenizer = load("smollm_style");
  const Json row = chat({{"user", "q"}, {"assistant", "yes"}});
  const ModelText reversing =
      with_template(*tokenizer, "<|im_end|>",
                    "{% for m in messages %}{{ m.content | reverse }}{% endfor %}{{ messages | length }}");
  EXPECT_EQ(error_of([&] { encoded(*tokenizer, reversing, row); }),
            "f:1: the chat template rewrites this chat, so the assistant's turns cannot be found in its "
            "text. Give such "
            "rows as prompt and completion, or set data.mask_prompt: false to supervise everything");
  EXPECT_EQ(encoded(*tokenizer, reversing, row, MaskPrompt::no), "⟦qsey2⟧");
}

TEST(Rows, ATokenAcrossTheBeginningOfAnAnswerIsSupervised) {
  const auto tokenizer = load("smollm_style");
  const ModelText text = model_with(*tokenizer, "<|im_end|>", "chatml");
  const RowEncoder encoder(tokenizer.get(), text, MaskPrompt::yes, vocab_size);
  const Json row = chat({{"user", "q"}, {"assistant", "\nab"}, {"user", "r"}, {"assistant", "\n\n c"}});
  const Document document = encoder.encode(row, RowShape::messages, "f:1");
  const ChatTemplate chat_template = parse_chat_template(text);
  EXPECT_EQ(document.ids, tokenizer->encode(chat_template.render(row["messages"], AddGenerationPrompt::no,
                                                                 text.template_variables),
                                            Special::none));
  const std::string text_shown = shown(*tokenizer, document);
  EXPECT_NE(text_shown.find("ab<|im_end|>⟧"), std::string::npos) << text_shown;
  EXPECT_NE(text_shown.find(" c<|im_end|>⟧"), std::string::npos) << text_shown;
  EXPECT_EQ(text_shown.find("⟦assistant"), std::string::npos) << text_shown;
}

TEST(Rows, OfChatsWithoutATemplateOrWithABrokenOneSayWhatToDo) {
  const auto tokenizer = load("smollm_style");
  const Json row = chat({{"user", "q"}});
  EXPECT_TRUE(error_of([&] {
                encoded(*tokenizer, model_with(*tokenizer, "<|im_end|>"), row);
              }).starts_with("f:1: a chat needs the model's chat template"));
  const ModelText broken = with_template(*tokenizer, "<|im_end|>", "{% if %}");
  EXPECT_TRUE(error_of([&] {
                encoded(*tokenizer, broken, row);
              }).starts_with("f:1: the model's chat template cannot be used: t:1: "));
  EXPECT_EQ(encoded(*tokenizer, broken, {{"text", "a"}}), "⟦a<|im_end|>⟧");
  const ModelText refusing = model_with(*tokenizer, "<|im_end|>", "llama2");
  EXPECT_TRUE(error_of([&] {
                encoded(*tokenizer, refusing, chat({{"assistant", "a"}}));
              }).ends_with("Conversation roles must alternate user/assistant/user/assistant/..."));
}

TEST(Rows, OfBrokenChatsAreRefusedWithTheirPlace) {
  const auto tokenizer = load("smollm_style");
  const RowEncoder encoder(tokenizer.get(), model_with(*tokenizer, "<|im_end|>", "chatml"), MaskPrompt::yes,
                           vocab_size);
  const std::pair<const char*, const char*> cases[] = {
      {R"({"messages": []})", "f:9: the chat is an empty array"},
      {R"({"messages": "x"})", "f:9: the chat is a string"},
      {R"({"messages": ["x"]})", "f:9: a message is a string"},
      {R"({"messages": [{"content": "x"}]})", "f:9: \"role\" is missing"},
      {R"({"messages": [{"role": "user"}]})", "f:9: a message has no \"content\""},
      {R"({"messages": [{"role": "user", "content": 5}]})",
       "f:9: the \"content\" of a message is an integer"},
      {R"({"conversations": [{"from": "me", "value": "x"}]})", "f:9: \"from\" is \"me\""},
      {R"({"conversations": [{"from": "human"}]})", "f:9: \"value\" is missing"},
      {R"({"conversations": {}})", "f:9: \"conversations\" is an object"},
      {R"({"text": 5})", "f:9: \"text\" is an integer, expected a string"},
      {R"({"prompt": "a", "completion": null})", "f:9: \"completion\" is null"},
  };
  for (const auto& [source, message] : cases) {
    const Json row = parse_json(source, "r");
    const std::string found = error_of([&] { encoder.encode(row, encoder.shape_of(row, "f:9"), "f:9"); });
    EXPECT_TRUE(found.starts_with(message)) << source << " gave " << found;
  }
  EXPECT_EQ(error_of([&] {
              encoder.encode(Json{{"text", "\xff"}}, RowShape::text, "f:9");
            }),
            "f:9: \"text\" is not UTF-8");
}

TEST(Rows, OfConversationsAreChatsUnderOtherNames) {
  const auto tokenizer = load("smollm_style");
  const ModelText text = model_with(*tokenizer, "<|im_end|>", "chatml");
  const Json row = {{"conversations",
                     {{{"from", "system"}, {"value", "s"}},
                      {{"from", "human"}, {"value", "q"}},
                      {{"from", "gpt"}, {"value", "a"}}}}};
  EXPECT_EQ(encoded(*tokenizer, text, row),
            encoded(*tokenizer, text, chat({{"system", "s"}, {"user", "q"}, {"assistant", "a"}})));
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
