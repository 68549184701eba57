// Text files to documents, by all ranks and threads together. The work is cut by blocks of the files, so the
// outcome does not depend on who does what.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/data/dataset.h"
#include "src/data/jsonl.h"
#include "src/data/token_file.h"

namespace ptrain {

/// What every rank knows of the text before it is tokenized.
struct TextScan {
  uint64_t digest = 0;                   // of the content
  std::vector<int64_t> newlines_before;  // of each block's file, before the block
};

/// A collective: each rank reads its share of the blocks, all learn of all.
TextScan scan_text(const TextFiles& files, int threads, Communicator& comm);

/// Encodes blocks [begin, end) on `threads` threads and hands the documents over in file order, with where
/// their rows lie. Does not communicate. Errors: ExitCode::input: the first broken row in file order.
struct EncodeJob {
  const TextFiles& files;
  const TextScan& scan;
  const Encoding& encoding;
  int64_t vocabulary_size;
  int threads;
};
using TakeDocument = std::function<void(Document&& document, size_t file, int64_t line)>;
/// Returns what the rows are: "messages", or several joined by commas.
std::string encode_blocks(const EncodeJob& job, size_t begin, size_t end, const TakeDocument& take);

/// A collective: makes the token file `path` of all the text on every disk, unless there are no rows in it.
/// Each rank encodes its share once, whatever the disks. Temporary files lie beside it.
TokenTotals write_tokens(const EncodeJob& job, const std::filesystem::path& path, const Storage& storage);

}  // namespace ptrain
