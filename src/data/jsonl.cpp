#include "src/data/jsonl.h"

#include <glob.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/error.h"
#include "src/io/s3.h"

namespace ptrain {
namespace {

constexpr int64_t min_block_bytes = int64_t{64} << 10;
constexpr int64_t max_block_bytes = int64_t{1} << 20;
constexpr int64_t blocks_per_file = 64;  // of a file of middling size: enough for many ranks and threads

/// Multiplies to 128 bits and folds them.
uint64_t mixed(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

constexpr uint64_t odd_a = 0x9E3779B97F4A7C15;
constexpr uint64_t odd_b = 0xD1B54A32D192ED03;

/// A 64-bit hash, 16 bytes a round. For telling files apart, not against an adversary.
uint64_t hash_bytes(std::string_view text) {
  uint64_t hash = mixed(text.size() ^ odd_a, odd_b);
  size_t at = 0;
  for (; at + 16 <= text.size(); at += 16) {
    uint64_t words[2];
    std::memcpy(words, text.data() + at, 16);
    hash = mixed(words[0] ^ hash ^ odd_a, words[1] + (hash << 1 | 1) * odd_b);
  }
  uint64_t rest[2] = {0, 0};
  std::memcpy(rest, text.data() + at, text.size() - at);
  return mixed(mixed(rest[0] ^ hash ^ odd_a, rest[1] + (hash << 1 | 1) * odd_b) ^ odd_b, odd_a);
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

void check_file(const std::filesystem::path& path, std::string_view key) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(std::filesystem::exists(status), ExitCode::input, "{}: {}: no such file", key, path.string());
  check(!std::filesystem::is_directory(status), ExitCode::input,
        "{}: {} is a directory; name its files: {}/*.jsonl", key, path.string(), path.string());
  check(path.extension() == ".jsonl" || path.extension() == ".h5", ExitCode::input,
        "{}: {}: only .jsonl files, and .h5 files made by `ptrain preprocess`, are read", key, path.string());
}

}  // namespace

std::vector<std::filesystem::path> expand_files(std::span<const std::string> patterns, std::string_view key) {
  std::vector<std::filesystem::path> files;
  for (const std::string& pattern : patterns) {
    check(!is_s3(pattern), ExitCode::usage,
          "{}: {}: only training fetches from S3; bring the file here first, for example with s5cmd cp", key,
          pattern);
    std::error_code error;
    std::vector<std::filesystem::path> found;
    if (std::filesystem::exists(pattern, error) || pattern.find_first_of("*?[") == std::string::npos) {
      found.emplace_back(pattern);  // a name with brackets in it is a name where such a file is there
    } else {
      glob_t matches{};
      if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches) == 0) {
        found.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
      }
      ::globfree(&matches);
      check(!found.empty(), ExitCode::input, "{}: no file matches {}", key, pattern);
      std::sort(found.begin(), found.end());  // by bytes: the locale does not matter
    }
    for (auto& path : found) {
      check_file(path, key);
      files.push_back(std::move(path));
    }
  }
  check(!files.empty(), ExitCode::input, "{}: no files are named", key);
  return files;
}

TextFiles::TextFiles(std::vector<std::filesystem::path> paths) {
  for (const auto& path : paths) {
    files_.push_back(File::open(path));
    const int64_t bytes = files_.back().bytes();
    const int64_t step = std::clamp(bytes / blocks_per_file, min_block_bytes, max_block_bytes);
    for (int64_t begin = 0; begin < bytes; begin += step) {
      blocks_.push_back({files_.size() - 1, begin, std::min(begin + step, bytes)});
    }
  }
}

std::string TextFiles::where(size_t file, int64_t line) const {
  return fmt::format("{}:{}", path(file).string(), line);
}

void TextFiles::too_long(size_t file, int64_t line) const {
  fail(ExitCode::input, "{}: a line of more than {} MiB", where(file, line), max_line_bytes >> 20);
}

BlockScan TextFiles::scan(const TextBlock& block) const {
  std::string text(static_cast<size_t>(block.end - block.begin), '\0');
  files_[block.file].read_at(block.begin, text.data(), block.end - block.begin);
  return {hash_bytes(text), std::count(text.begin(), text.end(), '\n')};
}

/// The bytes from the block's first line's begin to its last line's end, and the first line's number; "" if
/// no line begins there.
TextFiles::BlockText TextFiles::block_text(const TextBlock& block, int64_t newlines_before) const {
  const File& file = files_[block.file];
  // A line begins at 0 and after every newline: one byte more in front tells whether one begins at `begin`.
  const int64_t in_front = block.begin > 0 ? 1 : 0;
  std::string text(static_cast<size_t>(block.end - block.begin + in_front), '\0');
  file.read_at(block.begin - in_front, text.data(), static_cast<int64_t>(text.size()));
  size_t start = 0;
  int64_t first_line = newlines_before + 1;
  if (in_front > 0) {
    start = text.find('\n') + 1;  // 0 if there is none
    if (start == 0 || start == text.size()) return {};
    if (start > 1) ++first_line;
  }
  text.erase(0, start);
  // The last line may end in a later block.
  const size_t last_newline = text.rfind('\n');
  const size_t last_begin = last_newline == std::string::npos ? 0 : last_newline + 1;
  for (int64_t end = block.end; text.back() != '\n' && end < file.bytes();) {
    const size_t known = text.size();
    if (static_cast<int64_t>(known - last_begin) > max_line_bytes) {
      too_long(block.file, first_line + std::count(text.begin(), text.end(), '\n'));
    }
    const int64_t more = std::min(max_block_bytes, file.bytes() - end);
    text.resize(known + static_cast<size_t>(more));
    file.read_at(end, text.data() + known, more);
    end += more;
    const size_t newline = text.find('\n', known);
    if (newline != std::string::npos) text.resize(newline + 1);
  }
  return {std::move(text), first_line};
}

BlockLines TextFiles::lines(const TextBlock& block, int64_t newlines_before) const {
  auto [block_bytes, number] = block_text(block, newlines_before);
  BlockLines out{std::make_unique<std::string>(std::move(block_bytes)), {}};
  const std::string_view text = *out.memory;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);  // a byte order mark
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (is_blank(line)) continue;
    if (static_cast<int64_t>(line.size()) > max_line_bytes) too_long(block.file, number);
    if (const size_t good = valid_utf8(line); good < line.size()) {
      fail(ExitCode::input, "{}:{}: not UTF-8 (byte 0x{:02x}); is it another encoding, or compressed?",
           where(block.file, number), good + 1, static_cast<unsigned char>(line[good]));
    }
    out.lines.push_back({line, number});
  }
  return out;
}

std::pair<std::string, int64_t> TextFiles::first_line(size_t file) const {
  int64_t newlines = 0;
  for (const TextBlock& block : blocks_) {
    if (block.file != file) continue;
    const BlockLines found = lines(block, newlines);
    if (!found.lines.empty()) return {std::string(found.lines[0].text), found.lines[0].number};
    newlines += scan(block).newlines;
  }
  return {};
}

uint64_t content_digest(const TextFiles& files, std::span<const BlockScan> scans) {
  uint64_t digest = odd_b;
  for (size_t i = 0; i < scans.size(); ++i) {
    const TextBlock& block = files.blocks()[i];
    digest = mixed(digest ^ scans[i].hash, odd_a ^ static_cast<uint64_t>(block.end - block.begin));
    if (block.begin == 0) digest = mixed(digest ^ odd_a, odd_b);  // where a file begins matters
  }
  return digest;
}

size_t valid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word = 0;
    if (at + 8 <= text.size()) {
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080) == 0) {
        at += 8;
        continue;
      }
    }
    const unsigned first = byte(at);
    if (first < 0x80) {
      ++at;
      continue;
    }
    const size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4) return at;
    for (size_t i = 1; i <= more; ++i) {
      if ((byte(at + i) & 0xC0) != 0x80) return at;
    }
    // Longer than needed, surrogates, beyond U+10FFFF.
    const unsigned second = byte(at + 1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) {
      return at;
    }
    at += 1 + more;
  }
  return at;
}

}  // namespace ptrain
