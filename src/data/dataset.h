// From the files of a configuration to numbered documents: text is tokenized once, by all ranks together, and
// kept as a token file by the content of the text and the encoding. Not for what a row means (the encoding
// knows) and not for rows of the model (packing, batches).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/data/document_source.h"
#include "src/data/token_file.h"
#include "src/io/storage.h"

namespace ptrain {

/// One row's document. `where` ("data/train.jsonl:12") is for messages. Called from several threads at once.
/// Errors: ExitCode::input with `where` in front.
using EncodeLine = std::function<Document(std::string_view line, std::string_view where)>;

/// How rows become documents.
struct Encoding {
  struct ForFile {
    EncodeLine encode;
    std::string rows;  // what the rows are, for people: "messages"
  };
  /// Looks at the first row of a file and says how all its rows are encoded. Called by every rank that
  /// encodes.
  std::function<ForFile(std::string_view first_line, std::string_view where)> begin_file;
  /// Of all that decides the outcome besides the text: tokenizer, template, masking. Equal digests must give
  /// equal documents.
  uint64_t digest = 0;
};

struct DatasetOptions {
  std::vector<std::string> files;         // patterns: .jsonl, or .h5 made by preprocess
  std::string key = "data.train";         // of the configuration, for messages
  int64_t vocabulary_size = 0;            // of the model: ids must be below
  std::filesystem::path cache_directory;  // on every disk of the storage; empty: text is kept in memory
  int threads = 1;                        // of this rank
};

/// Documents of several sources, one after the other.
class Dataset : public DocumentSource {
 public:
  explicit Dataset(std::vector<std::unique_ptr<DocumentSource>> sources);
  int64_t size() const override { return begin_.back(); }
  int64_t length(int64_t sample) const override;
  void read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  std::string name(int64_t sample) const override;

 private:
  size_t source_of(int64_t sample) const;

  std::vector<std::unique_ptr<DocumentSource>> sources_;
  std::vector<int64_t> begin_;  // of each source's documents, and the end
};

/// A collective: opens the documents of the files. Text that was not tokenized yet, or whose token file is
/// damaged, is tokenized by all ranks and written to `cache_directory`/tokens-<key>.h5 on every disk.
/// Errors, agreed by all ranks: ExitCode::input: no such files, broken rows (the first in file order is
/// named), ids outside the vocabulary, no rows at all; ExitCode::resources: the disk.
std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options, const Encoding& encoding,
                                      const Storage& storage);

/// A collective: makes the token file `out` of the .jsonl files, which need not be a cache, on every disk.
/// Returns what it holds. Errors: as open_dataset; .h5 files are refused.
TokenTotals preprocess(const DatasetOptions& options, const Encoding& encoding,
                       const std::filesystem::path& out, const Storage& storage);

}  // namespace ptrain
