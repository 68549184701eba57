#include "src/data/document_source.h"

#include <fmt/format.h>

#include <algorithm>

namespace ptrain {

void MemoryDocuments::read(int64_t sample, int64_t begin, std::span<int32_t> ids,
                           std::span<int32_t> labels) const {
  const Document& document = documents_[static_cast<size_t>(sample)];
  std::copy_n(document.ids.begin() + begin, ids.size(), ids.begin());
  std::copy_n(document.labels.begin() + begin, labels.size(), labels.begin());
}

std::string MemoryDocuments::name(int64_t sample) const {
  const auto index = static_cast<size_t>(sample);
  return index < places_.size() ? places_[index] : fmt::format("row {}", sample + 1);
}

}  // namespace ptrain
