// For a single text every post-processor comes down to ids before it and ids after it.
#include "src/data/tokenizer/post_processor.h"

#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

int32_t read_id(const Json& value, const std::string& where, int32_t num_ids) {
  check(value.is_number_integer(), ExitCode::input, "{}: an id is {}, expected an integer", where,
        kind_of(value));
  const bool is_known = value.get<int64_t>() >= 0 && value.get<int64_t>() < num_ids;
  check(is_known, ExitCode::input, "{}: id {} is not among the {} ids of the tokenizer", where, value.dump(),
        num_ids);
  return value.get<int32_t>();
}

/// "single": a list of {"Sequence": {"id": "A"}} and {"SpecialToken": {"id": name}}.
PostProcessor read_template(const Json& settings, const std::string& where, int32_t num_ids) {
  const Json& single = member(settings, "single", where);
  const Json special_tokens = optional_or<Json>(settings, "special_tokens", Json::object(), where);
  check(single.is_array(), ExitCode::input, "{}: \"single\" is {}, expected an array", where,
        kind_of(single));
  PostProcessor processor;
  bool has_text = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const std::string place = fmt::format("{}.single[{}]", where, i);
    check(single[i].is_object() && single[i].size() == 1, ExitCode::input,
          "{}: expected Sequence or SpecialToken", place);
    const std::string kind = single[i].begin().key();
    const Json& piece = single[i].front();
    check(kind == "Sequence" || kind == "SpecialToken", ExitCode::input,
          "{}: is \"{}\", expected Sequence or SpecialToken", place, kind);
    const auto name = required<std::string>(piece, "id", place);
    if (kind == "Sequence") {
      check(name == "A" && !has_text, ExitCode::input,
            "{}: the sequence \"{}\"{} has no place in a single text", place, name,
            has_text ? ", the second" : "");
      has_text = true;
      continue;
    }
    check(special_tokens.is_object() && special_tokens.contains(name), ExitCode::input,
          "{}: \"{}\" is not in \"special_tokens\"", place, name);
    const Json& ids = member(special_tokens[name], "ids", where + ".special_tokens." + name);
    check(ids.is_array(), ExitCode::input, "{}.special_tokens.{}: \"ids\" is {}, expected an array", where,
          name, kind_of(ids));
    for (const Json& id : ids)
      (has_text ? processor.after : processor.before).push_back(read_id(id, place, num_ids));
  }
  check(has_text, ExitCode::input, "{}: \"single\" leaves the text itself out", where);
  return processor;
}

/// ["[CLS]", 101]
int32_t read_named_id(const Json& settings, std::string_view key, const std::string& where, int32_t num_ids) {
  const Json& pair = member(settings, key, where);
  check(pair.is_array() && pair.size() == 2, ExitCode::input, "{}: \"{}\" is {}, expected [token, id]", where,
        key, kind_of(pair));
  return read_id(pair[1], where, num_ids);
}

}  // namespace

PostProcessor read_post_processor(const Json& settings, const std::string& where, int32_t num_ids) {
  if (settings.is_null()) return {};
  check(settings.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(settings));
  const auto type = required<std::string>(settings, "type", where);
  if (type == "ByteLevel") return {};  // only trims offsets
  if (type == "TemplateProcessing") return read_template(settings, where, num_ids);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {{read_named_id(settings, "cls", where, num_ids)},
            {read_named_id(settings, "sep", where, num_ids)}};
  }
  check(type == "Sequence", ExitCode::input,
        "{}: the post-processor \"{}\" is not supported (supported: ByteLevel, TemplateProcessing, "
        "BertProcessing, "
        "RobertaProcessing, Sequence)",
        where, type);
  const Json& members = member(settings, "processors", where);
  check(members.is_array(), ExitCode::input, "{}: \"processors\" is {}, expected an array", where,
        kind_of(members));
  PostProcessor all;  // later members wrap what the earlier made
  for (size_t i = 0; i < members.size(); ++i) {
    const PostProcessor one =
        read_post_processor(members[i], fmt::format("{}.processors[{}]", where, i), num_ids);
    all.before.insert(all.before.begin(), one.before.begin(), one.before.end());
    all.after.insert(all.after.end(), one.after.begin(), one.after.end());
  }
  return all;
}

}  // namespace ptrain
