// Reads tokenizer.json in one pass. A vocabulary has up to hundreds of thousands of names, for which a
// general JSON object with ordered keys is far too slow; so the two tables go straight into arrays.
#include "src/data/tokenizer/file.h"

#include <algorithm>
#include <unordered_set>

#include "kernels/base/error.h"
#include "src/data/tokenizer/hash.h"
#include "src/data/tokenizer/sentencepiece.h"

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
    fail(ExitCode::input, "{}:{}: not valid JSON: {}", file_.where, 1 + std::count(text_.begin(), end, '\n'),
         error.what());
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

}  // namespace ptrain
