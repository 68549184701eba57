// What a run starts from: the model at model.path, and the rows that data.special_tokens adds to its
// vocabulary. Small files alone are read here; weights are model_files'.
#pragma once

#include <string>
#include <vector>

#include "src/data/tokenizer/tokenizer.h"
#include "src/io/hf_dir.h"
#include "src/model/spec.h"
#include "src/train/config.h"
#include "src/train/config_load.h"

namespace ptrain {

/// Rows [begin, begin + count) of embedding and head, which model.path does not have.
struct NewRows {
  int64_t begin = 0;
  int64_t count = 0;
  Config::NewTokenInit init = Config::NewTokenInit::normal;
  uint64_t seed = 0;
};

struct BaseModel {
  ModelSpec spec;                           // as it is trained: V with the new rows
  NewRows new_rows;                         // where tokens take ids behind the vocabulary
  std::vector<std::string> special_tokens;  // as their file lists them

  /// As model.path has it.
  ModelSpec stored_spec() const;
};

/// Tokens that the tokenizer lacks get the ids behind its own: rows that the vocabulary has to spare, else
/// new ones. Errors: ExitCode::input: a broken config.json, file of tokens, or tokenizer.
BaseModel read_base_model(const Config& config);

/// For people: "2 special tokens: [SEP] is 512, [STOP] is 513; the vocabulary grows from 512 to 514 rows".
/// tokenizer: the one that has them. Empty where there are none.
std::string about_special_tokens(const BaseModel& base, const Tokenizer& tokenizer);

/// The small files of the model that the run writes: where tokens are added, config.json, tokenizer.json and
/// what else lists tokens (tokenizer_config.json, special_tokens_map.json, added_tokens.json) say so.
/// tokenizer: the one that has them; may be null where there are none.
SmallFiles small_files_of(const BaseModel& base, const std::filesystem::path& model_dir,
                          const Tokenizer* tokenizer);

/// For verbs that read a model as it is. Errors: ExitCode::usage where data.special_tokens is given.
void refuse_special_tokens(const LoadedConfig& loaded);

}  // namespace ptrain
