#include "src/train/base_model.h"

#include <algorithm>

#include "src/data/special_tokens.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// How tokenizer_config.json tells a token.
Json told(const std::string& token) {
  return {{"content", token}, {"lstrip", false},      {"normalized", false},
          {"rstrip", false},  {"single_word", false}, {"special", true}};
}

/// Lists those tokens at "additional_special_tokens" that are not there: strings, or objects with "content".
void list_tokens(Json& file, const std::vector<std::string>& tokens) {
  Json& list = file["additional_special_tokens"];
  if (!list.is_array()) list = Json::array();
  for (const std::string& token : tokens) {
    const bool is_there = std::ranges::any_of(list, [&](const Json& each) {
      return each == token || (each.is_object() && each.value("content", Json()) == token);
    });
    if (!is_there) list.push_back(token);
  }
}

/// An object of the directory; nothing where there is no such file.
std::optional<Json> read_object(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  Json file = read_json(path);
  check(file.is_object(), ExitCode::input, "{}: is {}, expected an object", path.string(), kind_of(file));
  return file;
}

std::string text_of(const Json& file) {
  return file.dump(2) + "\n";
}

}  // namespace

ModelSpec BaseModel::stored_spec() const {
  ModelSpec stored = spec;
  stored.V -= new_rows.count;
  return stored;
}

BaseModel read_base_model(const Config& config) {
  BaseModel base{.spec = read_model_spec(config.model.path), .new_rows = {}, .special_tokens = {}};
  if (!config.data.special_tokens) return base;
  base.special_tokens = read_special_tokens(*config.data.special_tokens);
  check(has_tokenizer(config.model.path), ExitCode::input,
        "data.special_tokens adds to a tokenizer, but {} has neither tokenizer.json nor tokenizer.model",
        config.model.path);
  const int64_t ids = Tokenizer::load(config.model.path, base.special_tokens)->size();
  base.new_rows = {.begin = base.spec.V,
                   .count = std::max<int64_t>(0, ids - base.spec.V),
                   .init = config.model.new_token_init,
                   .seed = static_cast<uint64_t>(config.train.seed)};
  base.spec.V += base.new_rows.count;
  return base;
}

std::string about_special_tokens(const BaseModel& base, const Tokenizer& tokenizer) {
  if (base.special_tokens.empty()) return {};
  constexpr size_t most_named = 4;
  const size_t count = base.special_tokens.size();
  std::string text = fmt::format("{} special token{}: ", count, count == 1 ? "" : "s");
  for (size_t i = 0; i < std::min(count, most_named); ++i) {
    const std::string& token = base.special_tokens[i];
    text += fmt::format("{}{} is {}", i == 0 ? "" : ", ", token, tokenizer.id_of(token).value());
  }
  text += count > most_named ? ", …; " : "; ";
  if (base.new_rows.count == 0) return text + fmt::format("the vocabulary of {} rows has room", base.spec.V);
  return text + fmt::format("the vocabulary grows from {} to {} rows", base.new_rows.begin, base.spec.V);
}

SmallFiles small_files_of(const BaseModel& base, const fs::path& model_dir, const Tokenizer* tokenizer) {
  if (base.special_tokens.empty()) return {.directory = model_dir};
  const std::vector<std::string>& tokens = base.special_tokens;
  std::map<std::string, std::string> changed;
  changed["tokenizer.json"] = tokenizer_json(model_dir, tokens);
  Json config = read_hf_config(model_dir);
  config["vocab_size"] = base.spec.V;
  changed["config.json"] = text_of(config);

  if (auto file = read_object(model_dir / "tokenizer_config.json")) {
    Json& decoder = (*file)["added_tokens_decoder"];
    if (!decoder.is_object()) decoder = Json::object();
    for (const std::string& token : tokens) {
      Json& entry = decoder[std::to_string(tokenizer->id_of(token).value())];
      if (!entry.is_object()) entry = told(token);
      entry["special"] = true;
    }
    list_tokens(*file, tokens);
    changed["tokenizer_config.json"] = text_of(*file);
  }
  if (auto file = read_object(model_dir / "special_tokens_map.json")) {
    list_tokens(*file, tokens);
    changed["special_tokens_map.json"] = text_of(*file);
  }
  if (auto file = read_object(model_dir / "added_tokens.json")) {
    for (const std::string& token : tokens) (*file)[token] = tokenizer->id_of(token).value();
    changed["added_tokens.json"] = text_of(*file);
  }
  return {.directory = model_dir,
          .changed = std::make_shared<const std::map<std::string, std::string>>(std::move(changed))};
}

void refuse_special_tokens(const LoadedConfig& loaded) {
  check(!loaded.config.data.special_tokens, ExitCode::usage,
        "{}: tokens are added where a model is trained, and the model that comes of it has them; leave the "
        "key out here",
        loaded.where("data.special_tokens"));
}

}  // namespace ptrain
