// Merging by rank: a scan of neighbours for short pieces, a heap for long ones.
#include "src/data/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "kernels/base/error.h"
#include "src/data/tokenizer/byte_level.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr size_t short_piece = 64;  // symbols; below it the scan beats the heap
constexpr uint32_t no_rank = std::numeric_limits<uint32_t>::max();

std::string byte_token(unsigned byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace

Bpe::Bpe(const TokenizerFile& file, const Vocabulary& vocabulary, Alphabet alphabet)
    : vocabulary_(&vocabulary), alphabet_(alphabet) {
  read_settings(file);
  read_merges(file);
  id_of_byte_.resize(256, -1);
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string token;
    if (alphabet == Alphabet::bytes) {
      append_utf8(token, byte_level_codes[byte]);
    } else {
      token = byte_token(byte);
    }
    id_of_byte_[byte] = vocabulary.find(token);
  }
}

void Bpe::read_settings(const TokenizerFile& file) {
  const std::string where = file.where + ": model";
  const Json& model = file.settings.at("model");
  const double dropout = optional_or<double>(model, "dropout", 0.0, where);
  check(dropout == 0.0, ExitCode::input,
        "{}: \"dropout\" is {}; only tokenizers without dropout are supported", where, dropout);
  fuse_unknown_ = optional_or<bool>(model, "fuse_unk", false, where);
  byte_fallback_ = optional_or<bool>(model, "byte_fallback", false, where);
  ignore_merges_ = optional_or<bool>(model, "ignore_merges", false, where);
  prefix_ = optional_or<std::string>(model, "continuing_subword_prefix", "", where);
  suffix_ = optional_or<std::string>(model, "end_of_word_suffix", "", where);
  const auto unknown = optional_or<std::string>(model, "unk_token", "", where);
  if (!unknown.empty()) {
    unknown_ = vocabulary_->find(unknown);
    check(unknown_ >= 0, ExitCode::input, "{}: \"unk_token\" is \"{}\", which is not in \"vocab\"", where,
          unknown);
  }
  check(alphabet_ == Alphabet::utf8 || (!byte_fallback_ && prefix_.empty() && suffix_.empty()),
        "a byte alphabet together with byte_fallback, a prefix or a suffix");
}

void Bpe::read_merges(const TokenizerFile& file) {
  merges_.resize(std::bit_ceil(std::max<size_t>(16, 2 * file.merges.size())));
  shift_ = 64 - std::countr_zero(merges_.size());
  merged_ids_.reserve(file.merges.size());
  std::string merged;
  for (size_t i = 0; i < file.merges.size(); ++i) {
    const MergeEntry& entry = file.merges[i];
    const auto find = [&](const std::string& token) {
      const int32_t id = vocabulary_->find(token);
      check(id >= 0, ExitCode::input,
            "{}: model.merges: entry {} (\"{}\" + \"{}\") needs the token \"{}\", which "
            "is not in model.vocab",
            file.where, i, entry.left, entry.right, token);
      return id;
    };
    check(entry.right.size() >= prefix_.size(), ExitCode::input,
          "{}: model.merges: entry {}: \"{}\" is shorter than the prefix \"{}\"", file.where, i, entry.right,
          prefix_);
    merged.assign(entry.left).append(entry.right, prefix_.size());
    const uint64_t pair =
        static_cast<uint64_t>(find(entry.left)) << 32 | static_cast<uint32_t>(find(entry.right));
    size_t slot = (pair * 0x9E3779B97F4A7C15u) >> shift_;
    while (merges_[slot].pair != ~uint64_t{0} && merges_[slot].pair != pair)
      slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, entry.rank, find(merged)};  // the last of equal pairs counts
    merged_ids_.push_back(merges_[slot].id);
  }
}

bool Bpe::may_cut_before(std::string_view sign) const {
  if (ignore_merges_ || !prefix_.empty() || !suffix_.empty() || vocabulary_->find(sign) < 0) return false;
  return std::none_of(merged_ids_.begin(), merged_ids_.end(), [&](int32_t id) {
    std::string_view token = vocabulary_->token(id);
    while (token.starts_with(sign)) token.remove_prefix(sign.size());
    return token.find(sign) != std::string_view::npos;
  });
}

/// The ids of "<0xNN>" for every byte; false, with nothing appended, where one is missing.
bool Bpe::append_byte_ids(std::string_view text, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  for (char c : text) {
    const int32_t id = id_of_byte_[static_cast<unsigned char>(c)];
    if (id < 0) {
      ids.resize(before);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

/// One id for each byte; without an unknown token a byte that the vocabulary lacks is lost.
void Bpe::first_ids_of_bytes(std::string_view piece, BpeScratch& scratch) const {
  bool is_after_unknown = false;
  for (char c : piece) {
    const int32_t id = id_of_byte_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      scratch.ids.push_back(id);
    } else if (unknown_ >= 0 && !(fuse_unknown_ && is_after_unknown)) {
      scratch.ids.push_back(unknown_);
    }
    is_after_unknown = id < 0;
  }
}

/// One id for each character, or what stands for a character that the vocabulary lacks.
void Bpe::first_ids_of_characters(std::string_view piece, BpeScratch& scratch) const {
  bool is_unknown_pending = false;
  const auto flush = [&] {
    if (is_unknown_pending) scratch.ids.push_back(unknown_);
    is_unknown_pending = false;
  };
  for (size_t i = 0, size = 0; i < piece.size(); i += size) {
    size = decode_utf8(piece.data() + i).size_bytes;
    std::string_view character = piece.substr(i, size);
    const bool is_last = i + size == piece.size();
    if ((i > 0 && !prefix_.empty()) || (is_last && !suffix_.empty())) {
      scratch.text.assign(i > 0 ? prefix_ : "").append(character).append(is_last ? suffix_ : "");
      character = scratch.text;
    }
    if (const int32_t id = vocabulary_->find(character); id >= 0) {
      flush();
      scratch.ids.push_back(id);
    } else if (byte_fallback_ && append_byte_ids(character, scratch.ids)) {
      continue;  // an unknown that is pending stays so, as in the reference
    } else if (unknown_ >= 0) {
      if (!fuse_unknown_) flush();
      is_unknown_pending = true;
    }
  }
  flush();
}

/// Scans all pairs for each merge. Quadratic, but with small numbers and no pointers.
void Bpe::merge_short(std::vector<int32_t>& ids) const {
  std::array<uint32_t, short_piece> rank;  // of the pair (i, i + 1)
  std::array<int32_t, short_piece> merged;
  size_t count = ids.size();
  const auto look_up = [&](size_t i) {
    const Merge* merge = find_merge(ids[i], ids[i + 1]);
    rank[i] = merge ? merge->rank : no_rank;
    merged[i] = merge ? merge->id : -1;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const size_t best = static_cast<size_t>(
        std::min_element(rank.begin(), rank.begin() + static_cast<int64_t>(count - 1)) - rank.begin());
    if (merged[best] < 0) break;
    ids[best] = merged[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) ids[i] = ids[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      rank[i] = rank[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  ids.resize(count);
}

/// Orders the heap: std's heaps keep the largest on top, so "less" means "later".
struct Bpe::Later {
  bool operator()(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

void Bpe::push_candidate(BpeScratch& scratch, int32_t position) const {
  const BpeScratch::Symbol& left = scratch.symbols[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const int32_t right_id = scratch.symbols[static_cast<size_t>(left.next)].id;
  if (const Merge* merge = find_merge(left.id, right_id)) {
    scratch.heap.push_back({merge->rank, position, left.id, right_id});
  }
}

/// O(n log n) for any text, such as a line of a million equal letters.
void Bpe::merge_long(BpeScratch& scratch) const {
  auto& [ids, symbols, heap, text] = scratch;
  check(ids.size() < (size_t{1} << 31), ExitCode::resources, "a piece of {} symbols is too long to encode",
        ids.size());
  const auto count = static_cast<int32_t>(ids.size());
  symbols.resize(ids.size());
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) push_candidate(scratch, i);
  std::make_heap(heap.begin(), heap.end(), Later{});
  const auto push = [&](int32_t position) {
    const size_t before = heap.size();
    push_candidate(scratch, position);
    if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), Later{});
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), Later{});
    const BpeScratch::Candidate top = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[static_cast<size_t>(top.position)];
    if (left.id != top.left || left.next < 0) continue;
    BpeScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != top.right) continue;
    left.id = find_merge(top.left, top.right)->id;
    left.next = right.next;
    right.id = -1;  // gone: no candidate can name it any more
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.position;
    if (left.previous >= 0) push(left.previous);
    push(top.position);
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    std::string_view token = piece;
    if (alphabet_ == Alphabet::bytes) {
      scratch.text.clear();
      append_byte_level(scratch.text, piece);
      token = scratch.text;
    }
    if (const int32_t id = vocabulary_->find(token); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  scratch.ids.clear();
  if (alphabet_ == Alphabet::bytes) {
    first_ids_of_bytes(piece, scratch);
  } else {
    first_ids_of_characters(piece, scratch);
  }
  if (scratch.ids.size() <= short_piece) {
    merge_short(scratch.ids);
  } else {
    merge_long(scratch);
  }
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
}

}  // namespace ptrain
