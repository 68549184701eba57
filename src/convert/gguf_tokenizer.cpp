#include "src/convert/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr std::string_view space = "\xe2\x96\x81";  // U+2581, a blank in SentencePiece

enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Vocabulary {
  std::string where;
  std::vector<std::string> tokens;
  std::vector<int64_t> types;  // of each token; all normal where the file does not say
  std::unordered_map<std::string_view, int64_t> ids;
};

Vocabulary read_vocabulary(const GgufFile& file) {
  Vocabulary v;
  v.where = file.path().string();
  v.tokens = file.required<std::vector<std::string>>("tokenizer.ggml.tokens");
  v.types = file.get<std::vector<int64_t>>("tokenizer.ggml.token_type")
                .value_or(std::vector<int64_t>(v.tokens.size(), normal));
  check(v.types.size() == v.tokens.size(), ExitCode::input, "{}: {} tokens, but token_type has {} elements",
        v.where, v.tokens.size(), v.types.size());
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const auto [it, is_new] = v.ids.emplace(v.tokens[id], static_cast<int64_t>(id));
    check(is_new || v.types[id] == unused, ExitCode::input, "{}: the token {} appears twice, as {} and {}",
          v.where, Json(v.tokens[id]).dump(), it->second, id);
  }
  return v;
}

std::optional<int64_t> token_id(const GgufFile& file, const Vocabulary& v, std::string_view name) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
  const std::optional<int64_t> id = file.get<int64_t>(key);
  check(!id || (*id >= 0 && *id < static_cast<int64_t>(v.tokens.size())), ExitCode::input,
        "{}: {} is {}, but there are {} tokens", v.where, key, id.value_or(0), v.tokens.size());
  return id;
}

/// Everything of the vocabulary but unused places. Added tokens are in it too: their text never reaches the
/// model.
Json vocabulary_json(const Vocabulary& v) {
  Json vocabulary = Json::object();
  auto& members = vocabulary.get_ref<Json::object_t&>();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.types[id] != unused) members.emplace_back(v.tokens[id], static_cast<int64_t>(id));
  }
  return vocabulary;
}

Json added_tokens(const Vocabulary& v) {
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const int64_t type = v.types[id];
    if (type != control && type != user_defined && type != unknown) continue;
    if (v.tokens[id].empty()) continue;
    added.push_back({{"id", id},
                     {"content", v.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != user_defined}});
  }
  return added;
}

Json split(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json sequence(std::initializer_list<Json> parts) {
  return {{"type", "Sequence"}, {"pretokenizers", Json(Json::array_t(parts))}};
}

/// How a kind of pre-tokenizer cuts text before BPE.
struct PreTokenizer {
  Json json;
  bool has_nfc = false;
  bool ignores_merges = false;  // a piece that is a token as it stands is not merged
  bool adds_bos = false;        // where the file does not say
};

PreTokenizer pre_tokenizer(const GgufFile& file) {
  constexpr std::string_view contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  constexpr std::string_view rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  constexpr std::string_view words = R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  constexpr std::string_view gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  constexpr std::string_view triples = "[0-9][0-9][0-9]";
  const std::string kind = file.get<std::string>("tokenizer.ggml.pre").value_or("default");
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), kind) != names.end();
  };
  if (is_one_of({"gpt-2", "mpt", "olmo", "phi-2"})) return {byte_level(true)};
  if (is_one_of({"smollm", "starcoder", "refact", "codeshell"})) {
    return {sequence({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)})};
  }
  if (is_one_of({"llama-bpe", "llama3", "llama-v3"})) {
    const Json cut = split(fmt::format("{}{}\\p{{N}}{{1,3}}{}", contractions, words, rest));
    return {sequence({cut, byte_level(false)}), false, true, true};
  }
  if (is_one_of({"qwen2", "deepseek-r1-qwen"})) {
    const Json cut = split(fmt::format("{}{}\\p{{N}}{}", contractions, words, rest));
    return {sequence({cut, byte_level(false)}), true};
  }
  if (is_one_of({"falcon"})) {
    return {sequence({split(R"([\p{P}\$\+<=>\^~\|`]+)"), split(gpt2), split(triples), byte_level(false)})};
  }
  if (is_one_of({"default"})) {
    return {sequence({split(R"([\p{P}\$\+<=>\^~\|]+)"), split(gpt2), split(R"(\p{N}+)"), split(triples),
                      byte_level(false)})};
  }
  fail(ExitCode::input,
       "{}: its pre-tokenizer is of the kind \"{}\", supported are gpt-2, smollm, llama-bpe, qwen2, falcon, "
       "default "
       "and their other names",
       file.path().string(), kind);
}

/// "left right" lines as pairs; both and what they make are tokens.
Json read_merges(const GgufFile& file, const Vocabulary& v) {
  Json merges = Json::array();
  for (const std::string& line : file.required<std::vector<std::string>>("tokenizer.ggml.merges")) {
    // A token may begin with a blank in theory, never be empty: the blank that separates is not the first
    // byte.
    const size_t blank = line.find(' ', 1);
    check(blank != std::string::npos && blank + 1 < line.size(), ExitCode::input,
          "{}: the merge {} is not a pair of tokens", v.where, Json(line).dump());
    std::string left = line.substr(0, blank), right = line.substr(blank + 1);
    for (const std::string& token : {left, right, left + right}) {
      check(v.ids.count(token) == 1, ExitCode::input, "{}: the merge {} is of {}, which is not a token",
            v.where, Json(line).dump(), Json(token).dump());
    }
    merges.push_back({std::move(left), std::move(right)});
  }
  return merges;
}

/// The merges of a SentencePiece vocabulary: every way to make a token of two others, best score of the made
/// token first; of equal scores the longer left part first.
Json merges_by_score(const GgufFile& file, const Vocabulary& v) {
  const auto scores = file.required<std::vector<double>>("tokenizer.ggml.scores");
  check(scores.size() == v.tokens.size(), ExitCode::input, "{}: {} tokens, but {} scores", v.where,
        v.tokens.size(), scores.size());
  struct Merge {
    double score;
    std::string_view left, right;
  };
  std::vector<Merge> found;
  const auto is_plain = [&](std::string_view text) {
    const auto it = v.ids.find(text);
    return it != v.ids.end() && v.types[static_cast<size_t>(it->second)] == normal;
  };
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const std::string_view token = v.tokens[id];
    if (v.types[id] != normal) continue;
    check(token.size() <= 1024, ExitCode::input, "{}: token {} is {} bytes long", v.where, id, token.size());
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const bool is_inside_character = (static_cast<unsigned char>(token[cut]) & 0xc0) == 0x80;
      const std::string_view left = token.substr(0, cut), right = token.substr(cut);
      if (!is_inside_character && is_plain(left) && is_plain(right))
        found.push_back({scores[id], left, right});
    }
  }
  const auto order = [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left.size() != b.left.size()) return a.left.size() > b.left.size();
    return a.right.size() > b.right.size();
  };
  std::stable_sort(found.begin(), found.end(), order);
  Json merges = Json::array();
  for (const Merge& merge : found) merges.push_back({merge.left, merge.right});
  return merges;
}

/// Puts BOS in front and EOS behind, or null.
Json post_processor(const Vocabulary& v, std::optional<int64_t> bos, std::optional<int64_t> eos) {
  if (!bos && !eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto add_token = [&](Json& list, std::optional<int64_t> id, int sequence_id) {
    if (!id) return;
    const std::string& text = v.tokens[static_cast<size_t>(*id)];
    list.push_back({{"SpecialToken", {{"id", text}, {"type_id", sequence_id}}}});
    tokens[text] = {{"id", text}, {"ids", Json::array({*id})}, {"tokens", Json::array({text})}};
  };
  const auto add_sequence = [&](Json& list, const char* name, int sequence_id) {
    add_token(list, bos, sequence_id);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", sequence_id}}}});
    add_token(list, eos, sequence_id);
  };
  add_sequence(single, "A", 0);
  add_sequence(pair, "A", 0);
  add_sequence(pair, "B", 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json bpe_model(const Vocabulary& v, Json merges, Json unknown_token, bool has_byte_fallback,
               bool ignores_merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown_token)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", has_byte_fallback},
          {"byte_fallback", has_byte_fallback},
          {"ignore_merges", ignores_merges},
          {"vocab", vocabulary_json(v)},
          {"merges", std::move(merges)}};
}

/// The parts of SentencePiece's treatment of blanks: "a b" is "▁a▁b".
void add_sentencepiece_parts(Json& tokenizer, bool adds_space) {
  const Json to_mark = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}};
  const Json to_blank = {{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}};
  Json normalizers = Json::array({to_mark});
  Json decoders = Json::array({to_blank, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (adds_space) {
    normalizers.insert(normalizers.begin(), Json{{"type", "Prepend"}, {"prepend", space}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", normalizers}};
  tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
}

}  // namespace

ImportedTokenizer read_gguf_tokenizer(const GgufFile& file) {
  ImportedTokenizer result;
  const std::optional<std::string> kind = file.get<std::string>("tokenizer.ggml.model");
  if (!kind || *kind == "none") return result;
  const bool is_sentencepiece = *kind == "llama";
  check(is_sentencepiece || *kind == "gpt2", ExitCode::input,
        "{}: its tokenizer is of the kind \"{}\", supported are gpt2 and llama", file.path().string(), *kind);
  const Vocabulary v = read_vocabulary(file);
  result.size = static_cast<int64_t>(v.tokens.size());
  result.bos_id = token_id(file, v, "bos");
  result.eos_id = token_id(file, v, "eos");
  result.pad_id = token_id(file, v, "padding");
  const std::optional<int64_t> unknown_id = token_id(file, v, "unknown");
  const auto text_of = [&](std::optional<int64_t> id) {
    return id ? Json(v.tokens[static_cast<size_t>(*id)]) : Json(nullptr);
  };

  const PreTokenizer pre = is_sentencepiece ? PreTokenizer{nullptr, false, false, true} : pre_tokenizer(file);
  const bool adds_bos =
      file.get<bool>("tokenizer.ggml.add_bos_token").value_or(pre.adds_bos) && result.bos_id.has_value();
  const bool adds_eos =
      file.get<bool>("tokenizer.ggml.add_eos_token").value_or(false) && result.eos_id.has_value();
  Json& tokenizer = result.tokenizer;
  tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  tokenizer["added_tokens"] = added_tokens(v);
  tokenizer["normalizer"] = pre.has_nfc ? Json{{"type", "NFC"}} : Json(nullptr);
  tokenizer["pre_tokenizer"] = pre.json;
  tokenizer["post_processor"] =
      post_processor(v, adds_bos ? result.bos_id : std::nullopt, adds_eos ? result.eos_id : std::nullopt);
  if (is_sentencepiece) {
    add_sentencepiece_parts(tokenizer, file.get<bool>("tokenizer.ggml.add_space_prefix").value_or(true));
    tokenizer["model"] = bpe_model(v, merges_by_score(file, v), text_of(unknown_id), true, false);
  } else {
    tokenizer["decoder"] = byte_level(true);
    tokenizer["model"] = bpe_model(v, read_merges(file, v), nullptr, false, pre.ignores_merges);
  }

  Json& settings = result.settings;
  settings = {{"tokenizer_class", "PreTrainedTokenizerFast"},
              {"add_bos_token", adds_bos},
              {"add_eos_token", adds_eos},
              {"bos_token", text_of(result.bos_id)},
              {"eos_token", text_of(result.eos_id)},
              {"pad_token", text_of(result.pad_id)},
              {"unk_token", text_of(unknown_id)},
              {"clean_up_tokenization_spaces", false}};
  if (const auto chat = file.get<std::string>("tokenizer.chat_template")) settings["chat_template"] = *chat;
  return result;
}

}  // namespace ptrain
