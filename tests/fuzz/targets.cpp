#include "tests/fuzz/targets.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "src/convert/gguf.h"
#include "src/data/chat_template/chat_template.h"
#include "src/data/jsonl.h"
#include "src/data/rows.h"
#include "src/data/token_file.h"
#include "src/data/tokenizer/sentencepiece.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "src/model/spec.h"
#include "src/train/config_load.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"

namespace ptrain::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr int64_t small = 1 << 20;

/// A directory that lasts as long as the program, for parsers that read files.
const fs::path& scratch() {
  static const TemporaryDirectory directory;
  return directory.path();
}

fs::path file_of(const char* name, const std::string& bytes) {
  const fs::path path = scratch() / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

std::string fixture_text(std::string_view name) {
  return read_text(fixture(name), 16 * small);
}

void run_safetensors(const std::string& bytes) {
  const SafetensorsFile file = SafetensorsFile::open(file_of("a.safetensors", bytes));
  for (const SafetensorsEntry& entry : file.entries()) file.read(entry.name);
}

std::vector<std::string> safetensors_seeds() {
  std::vector<float> values(24, 1.5f);
  write_safetensors(scratch() / "seed",
                    {{"a.weight", Tensor(values.data(), {2, 3, 4}, DType::f32)},
                     {"b", Tensor(values.data(), {1}, DType::f32)}},
                    {{"format", "pt"}});
  const std::string header = R"({"x":{"dtype":"BF16","shape":[2,0],"data_offsets":[0,0]}})";
  std::string empty(8, '\0');
  empty[0] = static_cast<char>(header.size());
  return {read_text(scratch() / "seed", small), empty + header};
}

void run_index(const std::string& bytes) {
  static const bool is_made = [] {
    for (const char* name : {"model-1.safetensors", "model-2.safetensors"})
      file_of((std::string("hf/") + name).c_str(), safetensors_seeds()[1]);
    file_of("hf/config.json", "{}");
    return true;
  }();
  if (!is_made) return;
  file_of("hf/model.safetensors.index.json", bytes);
  HfDir::open(scratch() / "hf").identity();
}

std::vector<std::string> index_seeds() {
  return {R"({"metadata": {"total_size": 0}, "weight_map": {"x": "model-1.safetensors"}})"};
}

void run_config(const std::string& bytes) {
  file_of("cfg/config.json", bytes);
  read_model_spec(scratch() / "cfg");
}

std::vector<std::string> config_seeds() {
  std::vector<std::string> seeds = {fixture_text("golden/llama-gqa-tied/config.json")};
  for (const char* family : {"llama3_rope", "mistral_sliding", "qwen2"})
    seeds.push_back(fixture_text(std::string("golden/families/") + family + "/config.json"));
  return seeds;
}

void use(const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids =
      tokenizer.encode("Hello, w\xc3\xb6rld  12\n\xf0\x9f\x98\x80 \xff", Special::add);
  tokenizer.decode(ids, Skip::special);
}

void run_tokenizer_json(const std::string& bytes) {
  use(*Tokenizer::from_json(bytes, "tokenizer.json"));
}

/// A tokenizer small enough that mutations reach every part of it.
std::vector<std::string> tokenizer_json_seeds() {
  std::vector<std::string> seeds;
  for (const char* style : {"gpt2_bytelevel", "llama2_style", "llama3_style"}) {
    Json file = parse_json(fixture_text(std::string("tokenizers/") + style + "/tokenizer.json"), style);
    Json vocabulary = Json::object(), merges = Json::array();
    for (const auto& [token, id] : file["model"]["vocab"].items()) {
      if (id < 300) vocabulary[token] = id;
    }
    file["model"]["vocab"] = vocabulary;
    for (const Json& merge : file["model"]["merges"]) {
      std::string left, right;
      if (merge.is_array()) {
        left = merge[0], right = merge[1];
      } else {
        const auto pair = merge.get<std::string>();
        left = pair.substr(0, pair.find(' ')), right = pair.substr(pair.find(' ') + 1);
      }
      const bool is_known =
          vocabulary.contains(left) && vocabulary.contains(right) && vocabulary.contains(left + right);
      if (is_known && merges.size() < 20) merges.push_back(merge);
    }
    file["model"]["merges"] = merges;
    seeds.push_back(file.dump());
  }
  return seeds;
}

void run_tokenizer_model(const std::string& bytes) {
  parse_sentencepiece(bytes, "tokenizer.model", {});
}

std::vector<std::string> tokenizer_model_seeds() {
  return {fixture_text("tokenizers/llama2_style/tokenizer.model")};
}

void run_yaml(const std::string& bytes) {
  load_config_text(bytes, "run.yaml", {.home = "/home"});
}

std::vector<std::string> yaml_seeds() {
  return {
      "output: runs/x\nmodel: {path: m, init: random}\ndata:\n  train: [\"a*.jsonl\", b.h5]\n"
      "batch: {micro: 2, global: 8}\noptimizer:\n  betas: [0.9, 0.95]  # two\n  learning_rate: 1.0e-5\n"
      "train: {steps: null, seed: 1}\ncheckpoint:\n  upload: 's3://b/p'\n"};
}

void run_jsonl(const std::string& bytes) {
  static const auto tokenizer = Tokenizer::from_json(tokenizer_json_seeds()[0], "tokenizer.json");
  static const ModelText text = [] {
    ModelText made;
    made.chat_template =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{% generation "
        "%}.{% "
        "endgeneration %}{% endif %}{% endfor %}";
    return made;
  }();
  static const RowEncoder encoder(tokenizer.get(), text, MaskPrompt::yes, 300);
  const TextFiles files({file_of("rows.jsonl", bytes)});
  for (const TextBlock& block : files.blocks()) {
    const BlockLines lines = files.lines(block, 0);
    for (const Line& line : lines.lines) {
      const std::string where = files.where(block.file, line.number);
      const Json row = parse_json(line.text, where, 0);
      encoder.encode(row, encoder.shape_of(row, where), where);
    }
  }
}

std::vector<std::string> jsonl_seeds() {
  return {"{\"text\": \"Hello, w\xc3\xb6rld\"}\n\n{\"text\": \"\"}\r\n",
          "{\"prompt\": \"a\", \"completion\": \"b\"}\n",
          "{\"instruction\": \"do\", \"input\": \"it\", \"output\": \"done\"}\n",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": "
          "\"ho\"}]}\n",
          "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", \"value\": "
          "\"x\"}]}\n",
          "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n"};
}

void run_gguf(const std::string& bytes) {
  const GgufFile file = GgufFile::open(file_of("a.gguf", bytes));
  for (const auto& [key, value] : file.metadata()) to_string(value);
  std::vector<char> staging;
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.type->is_readable || tensor.shape.numel() == 0) continue;
    std::vector<float> row(static_cast<size_t>(tensor.shape[-1]));
    file.read_rows(tensor, 0, 1, row.data(), staging);
  }
}

std::vector<std::string> gguf_seeds() {
  GgufWriter writer;
  writer.set("general.architecture", "llama");
  writer.set("llama.block_count", 1);
  writer.set("llama.rope.freq_base", 1e4f);
  writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "b"});
  writer.set("tokenizer.ggml.scores", std::vector<float>{0, 1, 2});
  writer.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1});
  writer.set("x.is", true);
  writer.add("a.weight", {3, 2}, std::vector<float>(6, 1.0f));
  writer.add("q.weight", {32}, 8, std::string(34, 'q'));
  return {writer.bytes()};
}

/// The checksum at the end is made right again: else nothing behind it would ever be reached.
void run_manifest(const std::string& bytes) {
  constexpr std::string_view member = ",\n\"crc32c\": \"";
  const size_t at = bytes.rfind(member);
  std::string text = bytes.substr(0, std::min(at, bytes.size()));
  text += fmt::format("{}{:08x}\"\n}}\n", member, crc32c(text.data(), text.size()));
  parse_manifest(text, "MANIFEST.json");
  parse_manifest(bytes, "MANIFEST.json");
}

std::vector<std::string> manifest_seeds() {
  Manifest manifest;
  manifest.step = 7;
  manifest.run = {{"updates", 7}};
  manifest.files = {{"config.json", 2, 1}, {"model.safetensors", 104, 2}, {"state/rank-00000.h5", 64, 3}};
  const Slice whole = whole_of(Shape{2, 3});
  manifest.tensors[Manifest::Kind::weight] = {
      {"a", Shape{2, 3}, DType::f32, {{"model.safetensors", 80, Packing::in_tensor, whole, {11}}}}};
  manifest.tensors[Manifest::Kind::first_moment] = {
      {"a", Shape{2, 3}, DType::f32, {{"state/rank-00000.h5", 40, Packing::packed, whole, {12}}}}};
  return {to_text(manifest)};
}

void run_token_file(const std::string& bytes) {
  const TokenFile file(file_of("tokens.h5", bytes));
  file.verify(0, 1);
  std::vector<int32_t> ids, labels;
  for (int64_t sample = 0; sample < std::min<int64_t>(file.size(), 100); ++sample) {
    const auto length = static_cast<size_t>(std::min<int64_t>(file.length(sample), small));
    ids.resize(length), labels.resize(length);
    file.read(sample, 0, ids, labels);
  }
}

std::vector<std::string> token_file_seeds() {
  const fs::path spill_path = scratch() / "spill", path = scratch() / "seed.h5";
  TokenSpill spill(spill_path);
  spill.add({.ids = {1, 2, 3, 4}, .labels = {-100, 2, 3, 4}});
  spill.add({.ids = {7}, .labels = {7}});
  spill.finish();
  const fs::path spills[] = {spill_path};
  write_token_file(path, spills, spill.totals(),
                   {.content_digest = 1, .encoding_digest = 2, .rows = "messages"});
  return {read_text(path, small)};
}

void run_chat_template(const std::string& bytes) {
  const ChatTemplate parsed = ChatTemplate::parse(bytes, "chat_template");
  const Json messages = {{{"role", "user"}, {"content", "hi"}}, {{"role", "assistant"}, {"content", "ho"}}};
  parsed.render(messages, AddGenerationPrompt::yes, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
}

std::vector<std::string> chat_template_seeds() {
  std::vector<std::string> seeds;
  for (const char* name : {"chatml", "llama2", "llama3", "mistral_like"}) {
    const Json config =
        parse_json(fixture_text(std::string("chat_templates/") + name + "/tokenizer_config.json"), name);
    seeds.push_back(config["chat_template"].get<std::string>());
  }
  return seeds;
}

}  // namespace

std::span<const Target> targets() {
  static const Target table[] = {
      {"safetensors", run_safetensors, safetensors_seeds},
      {"index", run_index, index_seeds},
      {"config", run_config, config_seeds},
      {"tokenizer_json", run_tokenizer_json, tokenizer_json_seeds},
      {"tokenizer_model", run_tokenizer_model, tokenizer_model_seeds},
      {"yaml", run_yaml, yaml_seeds},
      {"jsonl", run_jsonl, jsonl_seeds},
      {"gguf", run_gguf, gguf_seeds},
      {"manifest", run_manifest, manifest_seeds},
      {"token_file", run_token_file, token_file_seeds},
      {"chat_template", run_chat_template, chat_template_seeds},
  };
  return table;
}

const Target& target(std::string_view name) {
  const auto it = std::ranges::find(targets(), name, &Target::name);
  if (it == targets().end()) throw std::runtime_error("no fuzz target " + std::string(name));
  return *it;
}

}  // namespace ptrain::fuzz
