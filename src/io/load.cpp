#include "src/io/load.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <numeric>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"

namespace ptrain {
namespace {

/// A wanted slice as the other ranks see it.
struct Want {
  int64_t rank;
  int64_t tensor;  // number in the source
  Slice slice;
};
constexpr size_t want_words = 3 + 2 * Shape::max_dims + 2;  // rank, tensor, dims, box, range

std::vector<int64_t> to_words(const Want& want) {
  std::vector<int64_t> words = {want.rank, want.tensor, want.slice.box.extent.dims()};
  for (int dim = 0; dim < Shape::max_dims; ++dim) {
    const bool is_used = dim < want.slice.box.extent.dims();
    words.push_back(is_used ? want.slice.box.begin[static_cast<size_t>(dim)] : 0);
    words.push_back(is_used ? want.slice.box.extent[dim] : 0);
  }
  words.push_back(want.slice.range.begin);
  words.push_back(want.slice.range.count);
  return words;
}

Want from_words(const int64_t* words) {
  Want want{words[0], words[1], {}};
  for (int dim = 0; dim < words[2]; ++dim) {
    want.slice.box.begin[static_cast<size_t>(dim)] = words[3 + 2 * dim];
    want.slice.box.extent.push_back(words[4 + 2 * dim]);
  }
  want.slice.range = {words[want_words - 2], words[want_words - 1]};
  return want;
}

/// One read: a chunk of a stored slice, and the ranks that want some of it.
struct Chunk {
  const StoredTensor* tensor;
  const StoredSlice* stored;
  int64_t index;
  Slice slice;
  std::vector<int> ranks;  // ascending
  int reader = 0;          // one of them where one sees the file

  int64_t bytes() const { return slice.numel() * size_bytes(tensor->dtype); }
};

/// The number of each wanted tensor in the source; all that is wrong is found before anything is read.
std::vector<int64_t> find_wanted(const TensorSource& source, std::span<const WantedSlice> wanted) {
  std::map<std::string_view, int64_t> index;
  for (const StoredTensor& tensor : source.tensors)
    index.emplace(tensor.name, static_cast<int64_t>(index.size()));
  std::vector<int64_t> found;
  std::string missing;
  int64_t num_missing = 0;
  for (const WantedSlice& want : wanted) {
    const auto it = index.find(want.name);
    if (it == index.end()) {
      ++num_missing;
      if (num_missing <= 3) missing += (missing.empty() ? "" : ", ") + want.name;
      continue;
    }
    const StoredTensor& tensor = source.tensors[static_cast<size_t>(it->second)];
    check(tensor.shape == want.shape, ExitCode::input,
          "{}: the tensor {} has the shape {}, but the model's configuration asks for {}", source.where,
          want.name, to_string(tensor.shape), to_string(want.shape));
    check_inside(want.slice, want.shape, want.name);
    check(want.destination.is_contiguous() && want.destination.numel() == want.slice.numel(),
          "{} {} is loaded to a tensor {}", want.name, to_string(want.slice),
          to_string(want.destination.shape));
    found.push_back(it->second);
  }
  check(num_missing == 0, ExitCode::input, "{}: {} tensors of the model are missing: {}{}", source.where,
        num_missing, missing, num_missing > 3 ? ", …" : "");
  return found;
}

/// What every rank wants, in rank order.
std::vector<Want> wants_of_all(Communicator& world, const std::vector<Want>& mine) {
  std::vector<int64_t> words;
  for (const Want& want : mine) {
    const std::vector<int64_t> some = to_words(want);
    words.insert(words.end(), some.begin(), some.end());
  }
  auto my_count = static_cast<int64_t>(words.size());
  std::vector<int64_t> counts(static_cast<size_t>(world.size()));
  world.all_gather(Tensor(&my_count, Shape{1}, DType::i64),
                   Tensor(counts.data(), Shape{world.size()}, DType::i64));
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  std::vector<int64_t> all(static_cast<size_t>(total));
  world.all_gather_varied(Tensor(words.data(), Shape{my_count}, DType::i64),
                          Tensor(all.data(), Shape{total}, DType::i64), counts);
  std::vector<Want> wants;
  for (size_t at = 0; at < all.size(); at += want_words) wants.push_back(from_words(all.data() + at));
  return wants;
}

/// All chunks that somebody wants, in an order that is the same on every rank.
std::vector<Chunk> wanted_chunks(const TensorSource& source, const std::vector<Want>& wants) {
  std::vector<std::vector<const Want*>> wants_of(source.tensors.size());
  for (const Want& want : wants) wants_of[static_cast<size_t>(want.tensor)].push_back(&want);
  std::vector<Chunk> chunks;
  for (size_t t = 0; t < source.tensors.size(); ++t) {
    const StoredTensor& tensor = source.tensors[t];
    if (wants_of[t].empty()) continue;
    for (const StoredSlice& stored : tensor.slices) {
      for (int64_t index = 0; index < num_chunks(stored.slice, tensor.dtype); ++index) {
        Chunk chunk{&tensor, &stored, index, chunk_of(stored.slice, tensor.dtype, index), {}};
        for (const Want* want : wants_of[t]) {
          const auto rank = static_cast<int>(want->rank);
          if (!chunk.ranks.empty() && chunk.ranks.back() == rank) continue;
          if (touch(chunk.slice, want->slice)) chunk.ranks.push_back(rank);
        }
        if (!chunk.ranks.empty()) chunks.push_back(std::move(chunk));
      }
    }
  }
  return chunks;
}

/// Who may read which chunk.
class Readers {
 public:
  Readers(const TensorSource& source, int size) : source_(source), size_(size) {}

  /// The ranks that want a chunk and see its file; where none does, all that see it. Ascending.
  std::vector<int> of(const Chunk& chunk) {
    if (!source_.is_seen_by) return chunk.ranks;
    const std::vector<int>& seeing = ranks_that_see(chunk.stored->file);
    std::vector<int> both;
    std::set_intersection(chunk.ranks.begin(), chunk.ranks.end(), seeing.begin(), seeing.end(),
                          std::back_inserter(both));
    return both.empty() ? seeing : both;
  }

 private:
  const std::vector<int>& ranks_that_see(const std::string& file) {
    const auto [it, is_new] = seeing_.try_emplace(file);
    for (int rank = 0; is_new && rank < size_; ++rank)
      if (source_.is_seen_by(file, rank)) it->second.push_back(rank);
    check(!it->second.empty(), "{}: no rank sees {}", source_.where, file);
    return it->second;
  }

  const TensorSource& source_;
  int size_;
  std::map<std::string, std::vector<int>, std::less<>> seeing_;
};

/// Gives each chunk to that of the ranks that want it which has the least to read so far, so that what only
/// one rank wants never travels unless it lies on another disk. Returns the chunks of each reader.
std::vector<std::vector<const Chunk*>> deal_out(const TensorSource& source, std::vector<Chunk>& chunks,
                                                int size) {
  std::vector<std::vector<const Chunk*>> chunks_of(static_cast<size_t>(size));
  std::vector<int64_t> bytes_of(static_cast<size_t>(size));
  Readers readers_of(source, size);
  for (Chunk& chunk : chunks) {
    const std::vector<int> readers = readers_of.of(chunk);
    chunk.reader = *std::min_element(readers.begin(), readers.end(), [&](int a, int b) {
      return bytes_of[static_cast<size_t>(a)] < bytes_of[static_cast<size_t>(b)];
    });
    bytes_of[static_cast<size_t>(chunk.reader)] += chunk.bytes();
    chunks_of[static_cast<size_t>(chunk.reader)].push_back(&chunk);
  }
  return chunks_of;
}

/// Copies what this rank wants of a chunk to its places.
void deliver(const Chunk& chunk, const std::vector<char>& bytes, std::span<const WantedSlice> wanted,
             const std::multimap<const StoredTensor*, size_t>& wanted_of) {
  const auto [first, last] = wanted_of.equal_range(chunk.tensor);
  for (auto it = first; it != last; ++it) {
    const WantedSlice& want = wanted[it->second];
    copy_common(chunk.slice, bytes.data(), chunk.tensor->dtype, want.slice, want.destination.data,
                want.destination.dtype);
  }
}

Tensor as_bytes(std::vector<char>& bytes) {
  return Tensor(bytes.data(), Shape{static_cast<int64_t>(bytes.size())}, DType::u8);
}

int64_t load_alone(const TensorSource& source, std::span<const WantedSlice> wanted,
                   const std::vector<int64_t>& found) {
  int64_t total = 0;
  std::vector<char> staging;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const StoredTensor& tensor = source.tensors[static_cast<size_t>(found[i])];
    for (const StoredSlice& stored : tensor.slices) {
      if (!touch(stored.slice, wanted[i].slice)) continue;
      total += read_common(source.file(stored.file), tensor, stored, wanted[i].slice, wanted[i].destination,
                           staging);
    }
  }
  return total;
}

}  // namespace

TensorSource source_of(const HfDir& directory) {
  return {directory.path().string(),
          directory.tensors(),
          [&directory](const std::string& name) -> const File& { return directory.file(name).file(); },
          {}};
}

int64_t load_slices(Communicator& world, const TensorSource& source, std::span<const WantedSlice> wanted) {
  std::vector<int64_t> found;
  agreed(world, [&] { found = find_wanted(source, wanted); });
  const int size = world.size();
  const int rank = world.rank();
  if (size == 1) return load_alone(source, wanted, found);

  std::vector<Want> mine;
  std::multimap<const StoredTensor*, size_t> wanted_of;
  for (size_t i = 0; i < wanted.size(); ++i) {
    mine.push_back({rank, found[i], wanted[i].slice});
    wanted_of.emplace(&source.tensors[static_cast<size_t>(found[i])], i);
  }
  const std::vector<Want> wants = wants_of_all(world, mine);
  std::vector<Chunk> chunks = wanted_chunks(source, wants);
  const std::vector<std::vector<const Chunk*>> chunks_of = deal_out(source, chunks, size);
  size_t num_rounds = 0;
  for (const auto& list : chunks_of) num_rounds = std::max(num_rounds, list.size());

  // Rounds of one chunk a reader: all read at the same time, then all pass on what they have read.
  int64_t total = 0;
  std::vector<char> own, received;
  for (size_t round = 0; round < num_rounds; ++round) {
    const auto chunk_of_reader = [&](int reader) {
      const auto& list = chunks_of[static_cast<size_t>(reader)];
      return round < list.size() ? list[round] : nullptr;
    };
    const Chunk* mine_to_read = chunk_of_reader(rank);
    agreed(world, [&] {
      if (!mine_to_read) return;
      const Chunk& chunk = *mine_to_read;
      total += read_chunk(source.file(chunk.stored->file), *chunk.tensor, *chunk.stored, chunk.index, own);
    });
    std::vector<Transfer> sends;
    if (mine_to_read) {
      for (const int peer : mine_to_read->ranks) {
        if (peer != rank) sends.push_back(world.isend(as_bytes(own), peer, Lane::control));
      }
      deliver(*mine_to_read, own, wanted, wanted_of);
    }
    for (int reader = 0; reader < size; ++reader) {
      const Chunk* chunk = chunk_of_reader(reader);
      if (!chunk || reader == rank) continue;
      if (!std::binary_search(chunk->ranks.begin(), chunk->ranks.end(), rank)) continue;
      received.resize(static_cast<size_t>(chunk->bytes()));
      world.irecv(as_bytes(received), reader, Lane::control).wait();
      deliver(*chunk, received, wanted, wanted_of);
    }
    for (Transfer& send : sends) send.wait();
  }
  return total;
}

int64_t check_tensors(Communicator& world, const TensorSource& source) {
  std::vector<int> everybody(static_cast<size_t>(world.size()));
  std::iota(everybody.begin(), everybody.end(), 0);
  std::vector<Chunk> chunks;
  for (const StoredTensor& tensor : source.tensors) {
    for (const StoredSlice& stored : tensor.slices) {
      for (int64_t index = 0; index < num_chunks(stored.slice, tensor.dtype); ++index)
        chunks.push_back({&tensor, &stored, index, chunk_of(stored.slice, tensor.dtype, index), everybody});
    }
  }
  const std::vector<std::vector<const Chunk*>> chunks_of = deal_out(source, chunks, world.size());
  int64_t total = 0;
  agreed(world, [&] {
    std::vector<char> staging;
    for (const Chunk* chunk : chunks_of[static_cast<size_t>(world.rank())]) {
      const File& file = source.file(chunk->stored->file);
      total += read_chunk(file, *chunk->tensor, *chunk->stored, chunk->index, staging);
    }
  });
  return total;
}

}  // namespace ptrain
