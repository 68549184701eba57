#include "src/train/run_data.h"

#include "parallel/comm/agree.h"
#include "src/data/row_encoding.h"

namespace ptrain {
namespace {

Overlong overlong_of(Config::Overlong choice) {
  switch (choice) {
    case Config::Overlong::automatic:
      return Overlong::automatic;
    case Config::Overlong::split:
      return Overlong::split;
    case Config::Overlong::truncate:
      return Overlong::truncate;
    case Config::Overlong::drop:
      return Overlong::drop;
    case Config::Overlong::error:
      return Overlong::error;
  }
  return Overlong::automatic;
}

}  // namespace

TextEncoder::TextEncoder(const std::filesystem::path& model_dir, const BaseModel& base, bool masks_prompt)
    : tokenizer(has_tokenizer(model_dir) ? Tokenizer::load(model_dir, base.special_tokens) : nullptr),
      text(read_model_text(model_dir, tokenizer.get())),
      rows(std::make_unique<RowEncoder>(tokenizer.get(), text,
                                        masks_prompt ? MaskPrompt::yes : MaskPrompt::no, base.spec.V)) {}

Encoding TextEncoder::encoding() const {
  return row_encoding(*rows);
}

RowRules row_rules(const Config::Data& data) {
  return {.sequence_length = data.sequence_length,
          .packing = data.packing ? RowPacking::on : RowPacking::off,
          .overlong = overlong_of(data.overlong)};
}

OrderRules order_rules(const Config& config, Shuffle allowed) {
  return {.seed = static_cast<uint64_t>(config.train.seed),
          .shuffle = config.data.shuffle ? allowed : Shuffle::off};
}

RunData open_run_data(const Config& config, const std::vector<std::string>& files, std::string_view key,
                      const TextEncoder& encoder, const ModelSpec& spec, int data_ranks, bool is_shuffled,
                      const std::filesystem::path& cache_directory, int threads, const Storage& storage) {
  RunData data;
  data.dataset = open_dataset({.files = files,
                               .key = std::string(key),
                               .vocabulary_size = spec.V,
                               .cache_directory = cache_directory,
                               .threads = threads},
                              encoder.encoding(), storage);
  agreed(storage.world(), [&] {
    data.batches = std::make_unique<Batches>(
        *data.dataset, row_rules(config.data),
        BatchGeometry{.micro = config.batch.micro, .global = config.batch.global, .data = data_ranks},
        order_rules(config, is_shuffled ? Shuffle::on : Shuffle::off));
  });
  return data;
}

}  // namespace ptrain
