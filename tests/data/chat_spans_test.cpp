#include "src/data/chat_spans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "src/data/chat_template/text.h"
#include "src/io/json.h"
#include "tests/data/row_support.h"

namespace ptrain {
namespace {

TEST(ChatRows, OfChatsSuperviseTheAssistantsTurnsWithTheirEndWhateverTheTemplate) {
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
TEST(ChatRows, TurnsOfAllGoldenChatsHoldTheMessageAndItsEnd) {
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

TEST(ChatRows, OfChatsFollowTemplatesWithHabitsOfTheirOwn) {
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

TEST(ChatRows, OfChatsWhoseTurnsCannotBeFoundAreRefused) {
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

TEST(ChatRows, ATokenAcrossTheBeginningOfAnAnswerIsSupervised) {
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

TEST(ChatRows, OfChatsWithoutATemplateOrWithABrokenOneSayWhatToDo) {
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

TEST(ChatRows, OfBrokenChatsAreRefusedWithTheirPlace) {
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

TEST(ChatRows, OfConversationsAreChatsUnderOtherNames) {
  const auto tokenizer = load("smollm_style");
  const ModelText text = model_with(*tokenizer, "<|im_end|>", "chatml");
  const Json row = {{"conversations",
                     {{{"from", "system"}, {"value", "s"}},
                      {{"from", "human"}, {"value", "q"}},
                      {{"from", "gpt"}, {"value", "a"}}}}};
  EXPECT_EQ(encoded(*tokenizer, text, row),
            encoded(*tokenizer, text, chat({{"system", "s"}, {"user", "q"}, {"assistant", "a"}})));
}

}  // namespace
}  // namespace ptrain
