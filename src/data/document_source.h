// Where tokenized documents come from: token files on disk, or memory.
// Not an order and not rows: packing plans those from the lengths, batches fills them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/data/document.h"

namespace ptrain {

/// Documents by number, from 0, in the order of the files. Const members may be called from several threads.
class DocumentSource {
 public:
  virtual ~DocumentSource() = default;
  virtual int64_t size() const = 0;
  /// Tokens of document `sample`.
  virtual int64_t length(int64_t sample) const = 0;
  /// Its tokens from `begin` on and their labels (-100: not supervised); both spans are as long as what is
  /// wanted. Errors: ExitCode::input where a file turns out to be damaged.
  virtual void read(int64_t sample, int64_t begin, std::span<int32_t> ids,
                    std::span<int32_t> labels) const = 0;
  /// Where the sample comes from, for messages.
  virtual std::string name(int64_t sample) const = 0;
};

/// Documents that are held in memory.
class MemoryDocuments : public DocumentSource {
 public:
  /// places: where each document comes from, for messages; may be empty.
  explicit MemoryDocuments(std::vector<Document> documents, std::vector<std::string> places = {})
      : documents_(std::move(documents)), places_(std::move(places)) {}
  int64_t size() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t length(int64_t sample) const override {
    return static_cast<int64_t>(documents_[static_cast<size_t>(sample)].ids.size());
  }
  void read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  std::string name(int64_t sample) const override;

 private:
  std::vector<Document> documents_;
  std::vector<std::string> places_;
};

}  // namespace ptrain
