#include "src/convert/import.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "parallel/comm/self_comm.h"
#include "src/convert/gguf.h"
#include "src/convert/gguf_model.h"
#include "src/convert/gguf_tokenizer.h"
#include "src/convert/publish.h"
#include "src/io/elements.h"
#include "src/io/file.h"
#include "src/io/hf_write.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t buffer_elements = int64_t{1} << 20;

/// Puts the rows of heads from the file's order (pairs side by side) into HF's (halves one after the other).
void unpair_rows(const float* paired, int64_t rows, int64_t columns, int64_t head_size, float* out) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_size * head_size;
    const int64_t inside = row % head_size;
    const int64_t target = head + inside % 2 * (head_size / 2) + inside / 2;
    std::memcpy(out + target * columns, paired + row * columns, static_cast<size_t>(columns) * sizeof(float));
  }
}

/// Copies one tensor in portions of whole heads or rows.
void write_tensor(const GgufFile& file, const ImportedTensor& tensor, HfWriter& writer) {
  const GgufTensor& source = *tensor.source;
  // The biases of q and k are rows of one element.
  const bool is_vector = source.shape.dims() == 1;
  const bool is_paired = tensor.paired_head_size > 0;
  const int64_t rows = is_vector && is_paired ? source.shape[0] : source.shape.rows();
  const int64_t columns = source.shape.numel() / rows;
  const int64_t unit = is_paired ? tensor.paired_head_size : 1;
  const int64_t portion = is_vector ? rows : std::max<int64_t>(1, buffer_elements / (columns * unit)) * unit;
  std::vector<float> values, unpaired;
  std::vector<char> staging;
  for (int64_t row = 0; row < rows; row += portion) {
    const int64_t count = std::min(portion, rows - row);
    values.resize(static_cast<size_t>(count * columns));
    file.read_rows(source, is_vector ? 0 : row, is_vector ? 1 : count, values.data(), staging);
    if (is_paired) {
      unpaired.resize(values.size());
      unpair_rows(values.data(), count, columns, tensor.paired_head_size, unpaired.data());
      values.swap(unpaired);
    }
    const Slice slice = {whole(source.shape), {row * columns, count * columns}};
    writer.write(tensor.name, slice, Tensor(values.data(), Shape{count * columns}, DType::f32));
  }
}

void finish_configuration(const GgufFile& file, const ImportedTokenizer& tokenizer, DType dtype,
                          Json& config) {
  const auto vocabulary = config["vocab_size"].get<int64_t>();
  check(tokenizer.size <= vocabulary, ExitCode::input, "{}: {} tokens, but the embedding has {} rows",
        file.path().string(), tokenizer.size, vocabulary);
  const auto id = [](std::optional<int64_t> id) { return id ? Json(*id) : Json(nullptr); };
  config["bos_token_id"] = id(tokenizer.bos_id);
  config["eos_token_id"] = id(tokenizer.eos_id);
  config["pad_token_id"] = id(tokenizer.pad_id);
  config["torch_dtype"] = torch_name(dtype);
}

Json generation_config(const Json& config) {
  Json generation = Json::object();
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!config[key].is_null()) generation[key] = config[key];
  }
  return generation;
}

}  // namespace

ImportReport import_gguf(const fs::path& source, const fs::path& directory, DType dtype) {
  // 1. Everything that can be wrong with the file is found before anything is written.
  const GgufFile file = GgufFile::open(source);
  ImportedModel model = read_gguf_model(file);
  const ImportedTokenizer tokenizer = read_gguf_tokenizer(file);
  finish_configuration(file, tokenizer, dtype, model.config);
  if (tokenizer.tokenizer.is_null()) log::warn("{}: holds no tokenizer, none is written", source.string());

  // 2. The weights.
  const fs::path work = work_directory(directory);
  std::error_code error;
  fs::remove_all(work, error);
  make_directories(work);
  std::vector<HfTensor> tensors;
  ImportReport report;
  for (const ImportedTensor& tensor : model.tensors) {
    tensors.push_back({tensor.name, tensor.source->shape, dtype});
    report.parameters += tensor.source->shape.numel();
  }
  report.tensors = static_cast<int64_t>(tensors.size());
  report.bytes = report.parameters * size_bytes(dtype);
  const auto self = make_self_communicator();
  HfWriter writer(*self, work, plan_hf_files(tensors));
  for (const ImportedTensor& tensor : model.tensors) write_tensor(file, tensor, writer);
  writer.sync();
  writer.finish();

  // 3. The small files.
  write_text(work / "generation_config.json", generation_config(model.config).dump(2) + "\n");
  if (!tokenizer.tokenizer.is_null()) {
    Json settings = tokenizer.settings;
    settings["model_max_length"] = model.config["max_position_embeddings"];
    write_text(work / "tokenizer.json", tokenizer.tokenizer.dump() + "\n");
    write_text(work / "tokenizer_config.json", settings.dump(2) + "\n");
  }
  write_text(work / "config.json", model.config.dump(2) + "\n");
  publish_model(directory);
  return report;
}

}  // namespace ptrain
