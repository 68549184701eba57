// Token documents on disk: ids, which of them are supervised, and where each document begins, in one HDF5
// file. Not for how text becomes tokens (dataset) nor for rows (packing).
//
// Datasets: offsets i64 (documents + 1), ids i32 (tokens), checksums i64 (CRC32C of every 256 KiB of the
// other three, in the order offsets, ids, supervision), and what is supervised, as compact as it can be:
//   all     nothing: every label is its id
//   mask    supervised u8 (tokens), 1 where the label is the id, 0 where it is -100
//   labels  labels i32 (tokens)
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "src/data/document_source.h"
#include "src/io/file.h"

namespace ptrain {

enum class Supervision { all, mask, labels };

/// What a file of tokens was made of.
struct TokenFileInfo {
  uint64_t content_digest = 0;   // of the text
  uint64_t encoding_digest = 0;  // of all that turns rows into tokens; 0 for rows of ids
  std::string rows;              // their shape, for people: "messages"
};

/// What a number of documents adds up to. Plain integers, so that ranks can exchange it.
struct TokenTotals {
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t supervised = 0;    // as the loss counts: not the first of a document
  int64_t id_end = 0;        // largest id or label + 1
  int64_t unsupervised = 0;  // labels of -100
  int64_t other_labels = 0;  // labels that are neither -100 nor their id

  void add(const TokenTotals& more);
  Supervision supervision() const;
};

/// Documents on their way into a token file: kept in a temporary file of one rank, which goes away with the
/// object.
class TokenSpill {
 public:
  /// Errors, here and below: ExitCode::resources.
  explicit TokenSpill(std::filesystem::path path);
  TokenSpill(const TokenSpill&) = delete;
  TokenSpill& operator=(const TokenSpill&) = delete;
  ~TokenSpill();

  void add(const Document& document);
  /// After the last: all bytes are in the file, for other ranks to read.
  void finish();
  const TokenTotals& totals() const { return totals_; }

 private:
  void flush();

  std::filesystem::path path_;
  File file_;
  int64_t end_ = 0;  // bytes written
  std::vector<int32_t> buffer_;
  TokenTotals totals_;
};

/// Makes the token file of the documents in `spills`, in that order, under a temporary name that is then
/// renamed. `totals` is of all of them. Errors: ExitCode::resources.
void write_token_file(const std::filesystem::path& path, std::span<const std::filesystem::path> spills,
                      const TokenTotals& totals, const TokenFileInfo& info);

/// A token file that is read document by document. Nothing it says is believed that does not fit into the
/// file; a block's checksum is looked at before its first use.
class TokenFile : public DocumentSource {
 public:
  /// Errors: ExitCode::input: not a token file, another version, parts that contradict each other.
  explicit TokenFile(const std::filesystem::path& path);

  int64_t size() const override { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t length(int64_t sample) const override {
    return offsets_[static_cast<size_t>(sample) + 1] - offsets_[static_cast<size_t>(sample)];
  }
  void read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  std::string name(int64_t sample) const override;

  const std::filesystem::path& path() const { return file_.path(); }
  const TokenFileInfo& info() const { return info_; }
  Supervision supervision() const { return supervision_; }
  int64_t tokens() const { return offsets_.back(); }
  int64_t supervised() const { return supervised_; }
  int64_t id_end() const { return id_end_; }  // every id and label is below

  /// Checks the checksums of share `part` of `parts` of the file. Errors: ExitCode::input.
  void verify(int64_t part, int64_t parts) const;

 private:
  struct Extent {
    int64_t offset = 0;  // bytes, in the file
    int64_t bytes = 0;
    int64_t first_block = 0;  // in checksums_
  };
  int64_t blocks() const { return static_cast<int64_t>(checksums_.size()); }
  void verify_block(const Extent& extent, int64_t block) const;
  void read_extent(const Extent& extent, int64_t begin, void* out, int64_t bytes) const;
  void load_offsets(int64_t tokens);
  [[noreturn]] void damaged(std::string_view what) const;

  File file_;
  TokenFileInfo info_;
  Supervision supervision_ = Supervision::all;
  int64_t supervised_ = 0;
  int64_t id_end_ = 0;
  Extent offsets_extent_;
  Extent ids_;
  Extent labels_;  // u8 for mask, i32 for labels, empty for all
  std::vector<int64_t> offsets_;
  std::vector<uint32_t> checksums_;
  mutable std::vector<std::atomic<uint64_t>> is_verified_;  // a bit for each block
};

}  // namespace ptrain
