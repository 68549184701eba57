// Ways to break a TinyRun's model, rows and configuration. Not for what the program says of them.
#pragma once

#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/safetensors.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {

// --- Ways to break a model
// -------------------------------------------------------------------------------------

inline std::string header_of(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::string bytes = read_text(path, 1 << 24);
  return bytes.substr(8, static_cast<size_t>(file.header_bytes()) - 8);
}

/// The weights with another header of the same length, blanks at its end.
inline void put_header(const TinyRun& run, std::string header) {
  const auto path = run.model() / "model.safetensors";
  std::string bytes = read_text(path, 1 << 24);
  const size_t length = header_of(path).size();
  header.resize(length, ' ');
  bytes.replace(8, length, header);
  put(path, bytes);
}

inline void overlap_tensors(const TinyRun& run) {
  Json header = parse_json(header_of(run.model() / "model.safetensors"), "header");
  auto& offsets = header["model.layers.0.mlp.up_proj.weight"]["data_offsets"];
  const auto other = header["model.layers.0.mlp.gate_proj.weight"]["data_offsets"];
  offsets = other;
  put_header(run, header.dump());
}

inline void cut_weights(const TinyRun& run) {
  const auto path = run.model() / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1000);
}

inline void huge_header(const TinyRun& run) {
  std::string bytes = read_text(run.model() / "model.safetensors", 1 << 24);
  bytes.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f");
  put(run.model() / "model.safetensors", bytes);
}

inline void rename_weights(const TinyRun& run, const char* name) {
  std::filesystem::rename(run.model() / "model.safetensors", run.model() / name);
}

inline void index_to_outside(const TinyRun& run) {
  std::filesystem::rename(run.model() / "model.safetensors", run.root() / "evil.safetensors");
  put(run.model() / "model.safetensors.index.json",
      R"({"metadata": {}, "weight_map": {"model.norm.weight": "../evil.safetensors"}})");
}

inline void index_to_nowhere(const TinyRun& run) {
  rename_weights(run, "model-00001-of-00002.safetensors");
  put(run.model() / "model.safetensors.index.json",
      R"({"metadata": {}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}})");
}

inline void link_to_outside(const TinyRun& run) {
  std::filesystem::rename(run.model() / "model.safetensors", run.root() / "evil.safetensors");
  std::filesystem::create_symlink(run.root() / "evil.safetensors", run.model() / "model.safetensors");
}

inline void quantise(const TinyRun& run) {
  Json header = parse_json(header_of(run.model() / "model.safetensors"), "header");
  Json& norm = header["model.norm.weight"];
  norm["dtype"] = "I32";
  put_header(run, header.dump());
}

// --- Ways to break data
// ----------------------------------------------------------------------------------------

template <const char* line>
void add_row(const TinyRun& run) {
  std::ofstream(run.rows(), std::ios::app) << line << "\n";
}
inline constexpr char no_json[] = R"({"input_ids": [1, 2})";
inline constexpr char other_shape[] = R"({"text": "a"})";
inline constexpr char no_shape[] = R"({"question": "a", "answer": "b"})";
inline constexpr char high_id[] = R"({"input_ids": [1, 199, 2]})";
inline constexpr char negative_id[] = R"({"input_ids": [1, -7, 2]})";
inline constexpr char huge_id[] = R"({"input_ids": [1, 99999999999999999999, 2]})";
inline constexpr char fewer_labels[] = R"({"input_ids": [1, 2, 3], "labels": [1, 2]})";
inline constexpr char a_list[] = R"([1, 2, 3])";

template <const char* rows>
void replace_rows(const TinyRun& run) {
  put(run.rows(), rows);
}
inline constexpr char nothing[] = "";
inline constexpr char blanks[] = "\n  \n\n";
inline constexpr char no_tokens[] = "{\"input_ids\": []}\n";

template <const char* more>
void add_keys(const TinyRun& run) {
  run.configure(more);
}
inline constexpr char unknown_key[] = "batch: {micro: 1, globl: 64}\n";
inline constexpr char duplicate_key[] = "batch: {micro: 1}\ntrain: {seed: 1}\nbatch: {global: 6}\n";
inline constexpr char mistyped[] = "batch: {global: many}\n";
inline constexpr char open_bracket[] = "batch: {global: 6\n";

}  // namespace ptrain
