// Reads tokenizer.json in one pass. A vocabulary has up to hundreds of thousands of names, for which a
// general JSON object with ordered keys is far too slow; so the two tables go straight into arrays.
#include "src/data/tokenizer/file.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "kernels/base/error.h"
#include "src/data/tokenizer/hash.h"
#include "src/data/tokenizer/sentencepiece.h"
#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int64_t max_file_bytes = int64_t{256} << 20;
constexpr size_t max_depth = 64;

/// Sends model.vocab and model.merges into the file's arrays and everything else to the JSON builder.
class TableSax : public nlohmann::json_sax<Json> {
 public:
  TableSax(TokenizerFile& file, std::string_view text)
      : file_(file), text_(text), dom_(file.settings, true) {}

  bool null() override { return in_settings() ? dom_.null() : table_value("null"); }
  bool boolean(bool value) override {
    return in_settings() ? dom_.boolean(value) : table_value("true or false");
  }
  bool number_integer(number_integer_t value) override {
    if (in_settings()) return dom_.number_integer(value);
    check(mode_ != Mode::vocab, ExitCode::input, "{}: model.vocab: token \"{}\" has the negative id {}",
          file_.where, token_, value);
    return table_value("a number");
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (in_settings()) return dom_.number_unsigned(value);
    if (mode_ != Mode::vocab) return table_value("a number");
    check(value < static_cast<uint64_t>(max_token_ids), ExitCode::input,
          "{}: model.vocab: token \"{}\" has id {}, expected 0 to {}", file_.where, token_, value,
          max_token_ids - 1);
    check(static_cast<int64_t>(file_.vocab.size()) < max_token_ids, ExitCode::input,
          "{}: model.vocab has more than {} tokens", file_.where, max_token_ids);
    file_.vocab.push_back({std::move(token_), static_cast<int32_t>(value)});
    return true;
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return in_settings() ? dom_.number_float(value, text) : table_value("a number with a fraction");
  }
  bool string(string_t& value) override {
    if (in_settings()) return dom_.string(value);
    if (mode_ == Mode::pair) {
      pair_.push_back(std::move(value));
      return true;
    }
    if (mode_ != Mode::merges) return table_value("a string");
    split_merge(value);
    return true;
  }
  bool binary(binary_t& value) override { return dom_.binary(value); }

  bool start_object(size_t n) override {
    deeper();
    if (in_settings() && awaited_ == Mode::vocab) return enter(Mode::vocab);
    if (!in_settings()) return table_value("an object");
    names_.emplace_back();
    return dom_.start_object(n);
  }
  bool key(string_t& name) override {
    if (mode_ == Mode::vocab) {
      token_ = std::move(name);
      return true;
    }
    if (!in_settings()) return true;
    check(names_.back().insert(name).second, ExitCode::input,
          "{}: the name \"{}\" appears twice in one object", file_.where, name);
    if (depth_ == 1) top_key_ = name;
    awaited_ = Mode::settings;
    if (depth_ == 2 && top_key_ == "model") {
      if (name == "vocab") awaited_ = Mode::vocab;
      if (name == "merges") awaited_ = Mode::merges;
    }
    return dom_.key(name);
  }
  bool end_object() override {
    --depth_;
    if (!in_settings()) return leave_if_done();
    names_.pop_back();
    return dom_.end_object();
  }
  bool start_array(size_t n) override {
    deeper();
    if (in_settings() && awaited_ == Mode::merges) return enter(Mode::merges);
    if (in_settings() && awaited_ == Mode::vocab) return enter(Mode::skipped);  // a Unigram model's table
    if (mode_ == Mode::merges) {
      mode_ = Mode::pair;
      pair_.clear();
      return true;
    }
    if (!in_settings()) return table_value("an array");
    return dom_.start_array(n);
  }
  bool end_array() override {
    --depth_;
    if (mode_ == Mode::pair) {
      check(pair_.size() == 2, ExitCode::input, "{}: model.merges: entry {} has {} tokens, expected 2",
            file_.where, file_.merges.size(), pair_.size());
      add_merge(std::move(pair_[0]), std::move(pair_[1]));
      mode_ = Mode::merges;
      return true;
    }
    return in_settings() ? dom_.end_array() : leave_if_done();
  }
  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) override {
    const auto end = text_.begin() + static_cast<int64_t>(std::min(offset, text_.size()));
    std::string reason = error.what();  // "[its name] parse error at line 1, column 2: the reason"
    if (const size_t colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
    fail(ExitCode::input, "{}:{}: not valid JSON: {}", file_.where, 1 + std::count(text_.begin(), end, '\n'),
         reason);
  }

 private:
  enum class Mode { settings, vocab, merges, pair, skipped };

  bool in_settings() const { return mode_ == Mode::settings; }

  void deeper() {
    check(++depth_ <= max_depth, ExitCode::input, "{}: JSON nested deeper than {} levels", file_.where,
          max_depth);
  }

  bool enter(Mode table) {
    mode_ = table;
    table_depth_ = depth_;
    awaited_ = Mode::settings;
    return dom_.null();  // stands where the table stood
  }

  bool leave_if_done() {
    if (depth_ < table_depth_) mode_ = Mode::settings;
    return true;
  }

  /// A value that has no place in a table.
  bool table_value(std::string_view kind) {
    check(mode_ != Mode::vocab, ExitCode::input, "{}: model.vocab: token \"{}\" has {} for its id",
          file_.where, token_, kind);
    check(mode_ == Mode::skipped, ExitCode::input, "{}: model.merges: entry {} is {}, expected two tokens",
          file_.where, file_.merges.size(), kind);
    return true;
  }

  /// The old spelling: "left right".
  void split_merge(const std::string& text) {
    if (text.starts_with("#version")) return;
    const size_t blank = text.find(' ');
    check(blank != std::string::npos && text.find(' ', blank + 1) == std::string::npos, ExitCode::input,
          "{}: model.merges: entry {} is \"{}\", expected two tokens with one blank between", file_.where,
          file_.merges.size(), text);
    add_merge(text.substr(0, blank), text.substr(blank + 1));
  }

  void add_merge(std::string left, std::string right) {
    check(file_.merges.size() < max_merges, ExitCode::input, "{}: model.merges has more than {} entries",
          file_.where, max_merges);
    file_.merges.push_back({std::move(left), std::move(right), static_cast<uint32_t>(file_.merges.size())});
  }

  TokenizerFile& file_;
  std::string_view text_;
  nlohmann::detail::json_sax_dom_parser<Json> dom_;
  Mode mode_ = Mode::settings;
  Mode awaited_ = Mode::settings;  // the table that the last name announced
  size_t depth_ = 0;
  size_t table_depth_ = 0;
  std::string top_key_;
  std::string token_;
  std::vector<std::string> pair_;
  std::vector<std::unordered_set<std::string>> names_;
};

}  // namespace

TokenizerFile parse_tokenizer_json(std::string_view text, std::string_view where) {
  TokenizerFile file;
  file.where = where;
  file.digest = hash_bytes(text);
  TableSax sax(file, text);
  Json::sax_parse(text.begin(), text.end(), &sax);
  check(file.settings.is_object(), ExitCode::input, "{}: the file holds {}, expected an object", where,
        kind_of(file.settings));
  return file;
}

TokenizerFile read_tokenizer_file(const std::filesystem::path& model_dir) {
  const std::filesystem::path json = model_dir / "tokenizer.json";
  const std::filesystem::path sentencepiece = model_dir / "tokenizer.model";
  std::error_code ignored;
  if (std::filesystem::exists(json, ignored)) {
    return parse_tokenizer_json(read_text(json, max_file_bytes), json.string());
  }
  check(
      std::filesystem::exists(sentencepiece, ignored), ExitCode::input,
      "{}: has neither tokenizer.json nor tokenizer.model; text needs one of them, rows of input_ids do not",
      model_dir.string());
  return read_sentencepiece(sentencepiece);
}

void add_special_tokens(TokenizerFile& file, std::span<const std::string> tokens) {
  if (tokens.empty()) return;
  std::unordered_map<std::string_view, int64_t> ids;
  int64_t next_id = 0;
  for (const VocabularyEntry& entry : file.vocab) {
    ids.emplace(entry.token, entry.id);
    next_id = std::max(next_id, int64_t{entry.id} + 1);
  }
  Json& added = file.settings["added_tokens"];
  if (added.is_null()) added = Json::array();
  check(added.is_array(), ExitCode::input, "{}: \"added_tokens\" is {}, expected an array", file.where,
        kind_of(added));
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < added.size(); ++i) {
    const std::string where = fmt::format("{}: added_tokens[{}]", file.where, i);
    places.emplace(required<std::string>(added[i], "content", where), i);
    next_id = std::max(next_id, required<int64_t>(added[i], "id", where) + 1);
  }
  for (const std::string& token : tokens) {
    check(!token.empty(), ExitCode::input, "{}: a special token to be added is empty", file.where);
    file.digest = hash_bytes(token, file.digest);
    if (const auto place = places.find(token); place != places.end()) {
      added[place->second]["special"] = true;
      continue;
    }
    const auto known = ids.find(token);
    places.emplace(token, added.size());
    added.push_back({{"id", known == ids.end() ? next_id++ : known->second},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
}

std::string to_json_text(const TokenizerFile& file) {
  const auto text_of = [](const auto& value) { return Json(value).dump(); };
  std::string vocab;
  for (const VocabularyEntry& entry : file.vocab) {
    vocab += (vocab.empty() ? "" : ",\n    ") + text_of(entry.token) + ": " + std::to_string(entry.id);
  }
  std::vector<const MergeEntry*> sorted;
  for (const MergeEntry& merge : file.merges) sorted.push_back(&merge);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const MergeEntry* a, const MergeEntry* b) { return a->rank < b->rank; });
  std::string merges;
  for (const MergeEntry* merge : sorted) {
    merges += (merges.empty() ? "" : ",\n    ") + text_of(std::array{merge->left, merge->right});
  }
  std::string text = "{\n";
  const auto separator = [](bool is_first) { return is_first ? "" : ",\n"; };
  for (const auto& [key, value] : file.settings.items()) {
    text += separator(text.size() == 2) + ("  " + text_of(key)) + ": ";
    if (key != "model" || !value.is_object()) {
      text += value.dump();
      continue;
    }
    text += "{\n";
    bool is_first = true;
    for (const auto& [name, setting] : value.items()) {
      text += separator(is_first) + ("   " + text_of(name)) + ": ";
      is_first = false;
      text += name == "vocab" ? "{" + vocab + "}" : name == "merges" ? "[" + merges + "]" : setting.dump();
    }
    text += "}";
  }
  return text + "\n}\n";
}

}  // namespace ptrain
