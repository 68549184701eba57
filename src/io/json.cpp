#include "src/io/json.h"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "src/io/file.h"

namespace ptrain {
namespace {

constexpr size_t max_depth = 64;

/// "3:7", line and column of a byte offset; the column alone where the caller has named the line (first_line
/// 0).
std::string position(std::string_view text, size_t offset, int first_line) {
  offset = std::min(offset, text.size());
  int line = first_line;
  size_t start = 0;
  for (size_t i = 0; i < offset; ++i) {
    if (text[i] == '\n') {
      ++line;
      start = i + 1;
    }
  }
  if (first_line == 0) return fmt::format("{}", offset + 1);
  return fmt::format("{}:{}", line, offset - start + 1);
}

/// The names of an object's members so far. Most objects have few, which are found sooner one by one.
class Names {
 public:
  /// False where it is there.
  bool add(const std::string& name) {
    if (!many_.empty()) return many_.insert(name).second;
    if (std::ranges::find(few_, name) != few_.end()) return false;
    few_.push_back(name);
    if (few_.size() > most_few) many_.insert(few_.begin(), few_.end());
    return true;
  }

 private:
  static constexpr size_t most_few = 12;
  std::vector<std::string> few_;
  std::unordered_set<std::string> many_;
};

/// Builds the value by nlohmann's own DOM builder and refuses what that one accepts: duplicates and deep
/// nesting.
class StrictSax : public nlohmann::json_sax<Json> {
 public:
  StrictSax(Json& root, std::string_view text, std::string_view where, int first_line)
      : dom_(root, true), text_(text), where_(where), first_line_(first_line) {}

  bool null() override { return dom_.null(); }
  bool boolean(bool value) override { return dom_.boolean(value); }
  bool number_integer(number_integer_t value) override { return dom_.number_integer(value); }
  bool number_unsigned(number_unsigned_t value) override { return dom_.number_unsigned(value); }
  bool number_float(number_float_t value, const string_t& s) override { return dom_.number_float(value, s); }
  bool string(string_t& value) override { return dom_.string(value); }
  bool binary(binary_t& value) override { return dom_.binary(value); }
  bool start_object(size_t n) override {
    deeper();
    names_.emplace_back();
    return dom_.start_object(n);
  }
  bool key(string_t& name) override {
    check(names_.back().add(name), ExitCode::input, "{}: the name \"{}\" appears twice in one object", where_,
          name);
    return dom_.key(name);
  }
  bool end_object() override {
    names_.pop_back();
    --depth_;
    return dom_.end_object();
  }
  bool start_array(size_t n) override {
    deeper();
    return dom_.start_array(n);
  }
  bool end_array() override {
    --depth_;
    return dom_.end_array();
  }
  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) override {
    std::string reason = error.what();
    if (const size_t cut = reason.find("parse error"); cut != std::string::npos) reason = reason.substr(cut);
    if (const size_t cut = reason.find(": "); cut != std::string::npos) reason = reason.substr(cut + 2);
    fail(ExitCode::input, "{}:{}: not valid JSON: {}", where_,
         position(text_, offset ? offset - 1 : 0, first_line_), reason);
  }

 private:
  void deeper() {
    check(++depth_ <= max_depth, ExitCode::input, "{}: JSON nested deeper than {} levels", where_, max_depth);
  }

  nlohmann::detail::json_sax_dom_parser<Json> dom_;
  std::string_view text_;
  std::string_view where_;
  int first_line_;
  size_t depth_ = 0;
  std::vector<Names> names_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view where, int first_line) {
  Json root;
  StrictSax sax(root, text, where, first_line);
  Json::sax_parse(text.begin(), text.end(), &sax);
  return root;
}

Json read_json(const std::filesystem::path& path, int64_t max_bytes) {
  return parse_json(read_text(path, max_bytes), path.string());
}

const Json& member(const Json& object, std::string_view key, std::string_view where) {
  const auto it = object.find(std::string(key));
  check(it != object.end(), ExitCode::input, "{}: \"{}\" is missing", where, key);
  return *it;
}

std::string_view kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "true or false";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "an integer";
    case Json::value_t::number_float:
      return "a number with a fraction";
    default:
      return "something else";
  }
}

void wrong_kind(const Json& value, std::string_view key, std::string_view expected, std::string_view where) {
  fail(ExitCode::input, "{}: \"{}\" is {}, expected {}", where, key, kind_of(value), expected);
}

}  // namespace ptrain
