#include "src/data/chat_template/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

Json special_tokens(const Json& config) {
  Json variables = Json::object();
  for (const char* name : {"bos_token", "eos_token"}) {
    if (config.contains(name) && config[name].is_string()) variables[name] = config[name];
  }
  return variables;
}

/// The text, or "error: …" with what the template or the interpreter says.
std::string rendered(std::string_view source, const Json& variables = Json::object(),
                     const Json& messages = Json::array()) {
  try {
    return ChatTemplate::parse(source, "t").render(messages, AddGenerationPrompt::no, variables);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return std::string("error: ") + error.what();
  }
}

class GoldenTemplates : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTemplates, RenderTheReferencesTextOrRefuseAsTheyDo) {
  const std::filesystem::path folder = fixture("chat_templates") / GetParam();
  const Json config = read_json(folder / "tokenizer_config.json");
  const ChatTemplate chat = ChatTemplate::parse(config["chat_template"].get<std::string>(), "template");
  std::ifstream file(folder / "cases.jsonl");
  std::string line;
  int count = 0;
  for (; std::getline(file, line); ++count) {
    const Json expected = parse_json(line, "cases.jsonl", count + 1);
    const auto prompt =
        expected["add_generation_prompt"].get<bool>() ? AddGenerationPrompt::yes : AddGenerationPrompt::no;
    SCOPED_TRACE(line.substr(0, 300));
    try {
      const std::string text = chat.render(expected["messages"], prompt, special_tokens(config));
      ASSERT_TRUE(expected.contains("rendered")) << "gave " << text;
      EXPECT_EQ(text, expected["rendered"].get<std::string>());
    } catch (const Error& error) {
      ASSERT_TRUE(expected.contains("error")) << error.what();
      EXPECT_EQ(error.code(), ExitCode::input);
      if (!expected["raised_by_template"].get<bool>()) continue;
      const std::string message = ": " + expected["error"].get<std::string>();
      EXPECT_TRUE(std::string_view(error.what()).ends_with(message)) << error.what();
    }
  }
  EXPECT_EQ(count, 60);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTemplates,
                         testing::Values("alpaca_like", "chatml", "llama2", "llama3", "mistral_like",
                                         "zephyr_like"));

std::tm fourth_of_july() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 4;
  now.tm_hour = 9;
  return now;
}

TEST(ChatTemplate, GivesWhatTheReferenceOfTheLanguageGives) {
  const Json setting = read_json(fixture("chat_templates/language_variables.json"));
  std::ifstream file(fixture("chat_templates/language.jsonl"));
  std::string line;
  int count = 0;
  for (; std::getline(file, line); ++count) {
    const Json expected = parse_json(line, "language.jsonl", count + 1);
    const std::string source = expected["template"].get<std::string>();
    SCOPED_TRACE(source);
    try {
      const std::string text =
          ChatTemplate::parse(source, "t")
              .render(setting["messages"], AddGenerationPrompt::yes, setting["variables"], fourth_of_july());
      ASSERT_TRUE(expected.contains("rendered")) << "should be refused, gave " << text;
      EXPECT_EQ(text, expected["rendered"].get<std::string>());
    } catch (const Error& error) {
      EXPECT_TRUE(expected.contains("error")) << error.what();
      EXPECT_EQ(error.code(), ExitCode::input);
    }
  }
  EXPECT_GT(count, 140);
}

TEST(ChatTemplate, NamesTheLineAndTheReasonOfAnError) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{{ x.y }}", "error: t:2: 'x' is undefined"},
      {"{{ 'a' + x }}", "error: t:1: 'x' is undefined"},
      {"{% if true %}\n\n{% endfor %}", "error: t:3: expected"},
      {"{{ 1 | nothing }}", "error: t:1: there is no filter named \"nothing\""},
      {"{{ 1 is nothing }}", "error: t:1: there is no test named \"nothing\""},
      {"{% include 'x' %}", "error: t:1: {% include %} is not supported"},
      {"{{ [].append(1) }}", "error: t:1: append() would change a list"},
      {"{{ strftime_now('%Y') }}", "error: t:1: 'strftime_now' is undefined"},
      {"\n{{ raise_exception('no ' ~ 1) }}", "error: t:2: no 1"},
      {"{{ 'abc", "error: t:1: a string is not closed"},
      {"\xff", "error: t: the chat template is not UTF-8"},
  };
  for (const auto& [source, message] : cases) {
    const std::string text = rendered(source);
    EXPECT_TRUE(text.starts_with(message)) << source << " gave " << text;
  }
}

std::string repeated(std::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ChatTemplate, HostileTemplatesEndWithAnError) {
  const int many = 100'000;
  const std::string grow = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for a in range(100000) %}";
  const std::string cases[] = {
      "{{ " + repeated("(", many),
      "{{ " + repeated("[", many) + repeated("]", many) + " }}",
      "{{ " + repeated("-", many) + "1 }}",
      "{{ " + repeated("not ", many) + "1 }}",
      "{{ " + repeated("1+", many) + "1 }}",
      "{{ x" + repeated(".a", many) + " }}",
      "{{ x" + repeated("|a", many) + " }}",
      "{{ 1 " + repeated("if 1 else 1 ", many) + " }}",
      repeated("{% if 1 %}", many),
      "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% for a in range(100000) %}" + repeated("text", 1000) + "{% endfor %}",
      grow + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
      grow + "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
      grow + "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == [ns.x] }}",
      "{% set ns = namespace(x=1) %}{% for a in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
      "ns.x }}",
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns] }}",
      "{{ 'x' * 10**12 }}",
      "{{ 'x'.ljust(10**12) }}",
      "{{ range(10**12) }}",
      "{{ range(-9223372036854775807, 9223372036854775807) }}",
      "{{ 1 ** 99999999999 }}",
      "{% set x = 'a' * 1000000 %}{{ x.replace('a', x) }}",
      "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% if 'b' in x %}{% endif %}{% endfor %}",
      "{{ (0 - 9223372036854775807 - 1) // -1 }}",
  };
  for (const std::string& source : cases) {
    const std::string text = rendered(source);
    EXPECT_TRUE(text.starts_with("error: t:1: ")) << source.substr(0, 80) << " gave " << text.substr(0, 80);
  }
}

TEST(ChatTemplate, ToolsAndDocumentsAreNoneUnlessGiven) {
  EXPECT_EQ(rendered("{{ tools is none }} {{ documents is none }} {{ bos_token is defined }}"),
            "True True False");
  EXPECT_EQ(rendered("{{ tools[0] }} {{ bos_token }}", {{"tools", {"a"}}, {"bos_token", "<s>"}}), "a <s>");
}

TEST(ChatTemplate, LeavesOutKeysOfMessagesThatAreNull) {
  const Json messages = Json::array({{{"role", "assistant"}, {"content", nullptr}}});
  EXPECT_EQ(rendered("{{ messages[0] }}", Json::object(), messages), "{'role': 'assistant'}");
}

TEST(ChatTemplate, RefusesMessagesThatAreNoArray) {
  EXPECT_EQ(rendered("x", Json::object(), Json::object()),
            "error: t: the messages of a chat are an object, expected an array");
}

}  // namespace
}  // namespace ptrain
