// Files of lines: which files a pattern means, their content cut into blocks that ranks and threads share,
// and the lines of a block with their numbers. Not for what a line holds: rows and the encoder know.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/file.h"

namespace ptrain {

/// The files that patterns name, in the given order, those of one pattern sorted by name. `key` is the
/// configuration key, for messages.
/// Errors: ExitCode::input: no pattern at all, nothing matched, a directory, neither .jsonl nor .h5.
std::vector<std::filesystem::path> expand_files(std::span<const std::string> patterns, std::string_view key);

/// One line without its end (\n or \r\n).
struct Line {
  std::string_view text;
  int64_t number = 0;  // in its file, from 1
};

/// Bytes [begin, end) of a file; the lines that begin there belong to the block.
struct TextBlock {
  size_t file = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

/// What must be known of a block before the blocks after it can be read: a pure function of its bytes.
struct BlockScan {
  uint64_t hash = 0;
  int64_t newlines = 0;
};

/// The lines of a block and the memory that they lie in. Move-only.
struct BlockLines {
  std::unique_ptr<std::string> memory;
  std::vector<Line> lines;  // blank ones left out
};

/// Text files as one row of blocks. How they are cut depends on the files' sizes alone, so every rank cuts
/// alike. Const members may be called from several threads at once.
class TextFiles {
 public:
  static constexpr int64_t max_line_bytes = int64_t{64} << 20;

  explicit TextFiles(std::vector<std::filesystem::path> paths);

  const std::vector<TextBlock>& blocks() const { return blocks_; }
  const std::filesystem::path& path(size_t file) const { return files_[file].path(); }
  size_t num_files() const { return files_.size(); }

  BlockScan scan(const TextBlock& block) const;
  /// The lines that begin in a block, checked to be UTF-8. newlines_before: of the file, before the block.
  /// Errors: ExitCode::input with file:line: not UTF-8, longer than max_line_bytes.
  BlockLines lines(const TextBlock& block, int64_t newlines_before) const;
  /// The first line of a file that is not blank; its text is empty where there is none.
  std::pair<std::string, int64_t> first_line(size_t file) const;
  /// "data/train.jsonl:12"
  std::string where(size_t file, int64_t line) const;

 private:
  [[noreturn]] void too_long(size_t file, int64_t line) const;

  struct BlockText {
    std::string text;
    int64_t first_line = 0;
  };
  BlockText block_text(const TextBlock& block, int64_t newlines_before) const;

  std::vector<File> files_;
  std::vector<TextBlock> blocks_;
};

/// One number for the content of all files, from the scans of all their blocks, in order.
uint64_t content_digest(const TextFiles& files, std::span<const BlockScan> scans);

/// Byte offset of the first byte of `text` that is not UTF-8; text.size() if all is.
size_t valid_utf8(std::string_view text);

}  // namespace ptrain
