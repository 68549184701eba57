// The rows of a run: from the configuration's files, the model's tokenizer and template to batches.
#pragma once

#include <memory>

#include "src/data/batches.h"
#include "src/data/dataset.h"
#include "src/data/model_text.h"
#include "src/data/rows.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/model/spec.h"
#include "src/train/base_model.h"
#include "src/train/config.h"

namespace ptrain {

/// What turns a row of text into tokens: read from a model directory, as far as it is there.
struct TextEncoder {
  /// Errors: ExitCode::input for what is there and broken. A missing tokenizer is an error only once a row
  /// needs it.
  TextEncoder(const std::filesystem::path& model_dir, const BaseModel& base, bool masks_prompt);

  Encoding encoding() const;

  std::unique_ptr<Tokenizer> tokenizer;  // null where the directory has none
  ModelText text;
  std::unique_ptr<RowEncoder> rows;
};

struct RunData {
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<Batches> batches;
};

/// A collective: the documents of `files`, tokenized once and cached below `cache_directory` (empty: in
/// memory) on every disk of `storage`. `is_shuffled`: training; else file order, as for validation.
RunData open_run_data(const Config& config, const std::vector<std::string>& files, std::string_view key,
                      const TextEncoder& encoder, const ModelSpec& spec, int data_ranks, bool is_shuffled,
                      const std::filesystem::path& cache_directory, int threads, const Storage& storage);

RowRules row_rules(const Config::Data& data);
/// `allowed` off: file order, whatever the configuration says.
OrderRules order_rules(const Config& config, Shuffle allowed);

}  // namespace ptrain
