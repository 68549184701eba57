#include "src/train/fingerprint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <map>

#include "kernels/base/rng.h"
#include "src/train/host_state.h"

namespace ptrain {
namespace {

constexpr int64_t hashed_elements = int64_t{1} << 20;

/// A bijection of 64 bits in which every bit of the input turns half of the output (Stafford's variant 13 of
/// MurmurHash3's last step).
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Elements [range) of the flat layout as values of the host, in its order.
using ReadElements = std::function<void(Range range, std::span<float> values)>;

/// What of a weight this rank counts of `elements` of the flat layout, as ranges of the weight's local
/// elements, ascending.
std::vector<Range> counted_of(const FlatPiece& piece, Range elements) {
  std::vector<Range> ranges;
  for (Range counted : piece.counted) {
    const Range common = intersection(counted, elements);
    if (common.count > 0) ranges.push_back({common.begin - piece.elements.begin, common.count});
  }
  return ranges;
}

/// Adds the ranges of a weight, chunk by chunk, and of a chunk row by row.
void add_ranges(const PlacedWeight& weight, const std::vector<Range>& ranges, const ReadElements& read,
                Fingerprint& sum) {
  const uint64_t stream = hash_of(weight.spec.piece.name);
  std::vector<int64_t> row_begin;  // of the rows of the box, in the global tensor
  for_each_run(weight.spec.piece.shape, weight.box,
               [&](int64_t global, int64_t, int64_t) { row_begin.push_back(global); });
  const int64_t width = weight.box.extent.columns();
  std::vector<float> values;
  for (Range range : ranges) {
    for (int64_t begin = range.begin; begin < range.end(); begin += hashed_elements) {
      const int64_t end = std::min(begin + hashed_elements, range.end());
      values.resize(static_cast<size_t>(end - begin));
      read({weight.offset + begin, end - begin}, values);
      for (int64_t at = begin; at < end;) {
        const int64_t count = std::min(end, (at / width + 1) * width) - at;
        add_elements(stream, row_begin[static_cast<size_t>(at / width)] + at % width,
                     std::span(values).subspan(static_cast<size_t>(at - begin), static_cast<size_t>(count)),
                     sum);
        at += count;
      }
    }
  }
}

/// Sums over the ranks. Hashes go in halves, since a sum of signed numbers must not run over.
void sum_over(Communicator& world, std::vector<Fingerprint>& all) {
  constexpr size_t wide = Fingerprint::projections + 1;
  std::vector<double> numbers;
  std::vector<int64_t> integers;
  for (const Fingerprint& one : all) {
    numbers.insert(numbers.end(), one.sums.begin(), one.sums.end());
    numbers.push_back(one.squares);
    integers.insert(integers.end(), {static_cast<int64_t>(one.bits & 0xFFFFFFFFu),
                                     static_cast<int64_t>(one.bits >> 32), one.elements});
  }
  world.all_reduce(Tensor(numbers.data(), {static_cast<int64_t>(numbers.size())}, DType::f64));
  world.all_reduce(Tensor(integers.data(), {static_cast<int64_t>(integers.size())}, DType::i64));
  for (size_t i = 0; i < all.size(); ++i) {
    std::copy_n(numbers.begin() + static_cast<ptrdiff_t>(i * wide), Fingerprint::projections,
                all[i].sums.begin());
    all[i].squares = numbers[i * wide + Fingerprint::projections];
    all[i].bits = static_cast<uint64_t>(integers[3 * i]) + (static_cast<uint64_t>(integers[3 * i + 1]) << 32);
    all[i].elements = integers[3 * i + 2];
  }
}

/// What this rank adds to each of trained_tensors(), of its shards alone or of all that it holds.
std::vector<Fingerprint> own_part(const Trainer& trainer, Held part, const ReadElements& read) {
  std::map<std::string, size_t, std::less<>> index;
  for (const std::string& name : trained_tensors(trainer.plan())) index.emplace(name, index.size());
  std::vector<Fingerprint> all(index.size());
  const FlatLayout& layout = trainer.model().layout();
  for (size_t i = 0; i < layout.pieces.size(); ++i) {
    const FlatPiece& piece = layout.pieces[i];
    const bool is_trained = piece.elements.begin < layout.trainable_elements;
    if (!is_trained || piece.counted.empty()) continue;
    const int bucket = layout.bucket_of_unit(piece.unit);
    const Range elements =
        part == Held::whole ? piece.elements : shard_of(layout, bucket, trainer.coordinate().data);
    const PlacedWeight& weight = trainer.model().placed()[i];
    add_ranges(weight, counted_of(piece, elements), read, all[index.at(weight.spec.piece.name)]);
  }
  return all;
}

std::vector<Fingerprint> fingerprints(const Trainer& trainer, const ReadElements& read, Communicator& world) {
  std::vector<Fingerprint> all = own_part(trainer, Held::shards, read);
  sum_over(world, all);
  return all;
}

}  // namespace

double Fingerprint::norm() const {
  return std::sqrt(squares);
}

void add_elements(uint64_t stream, int64_t first, std::span<const float> values, Fingerprint& sum) {
  constexpr uint64_t sign = uint64_t{1} << 63, odd = 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i] + 0.0f;  // -0 + 0 is 0
    const uint64_t place = mixed(stream + odd * (static_cast<uint64_t>(first) + i));
    sum.bits += mixed(place + odd * std::bit_cast<uint32_t>(value));
    const double wide = double{value};
    for (size_t k = 0; k < Fingerprint::projections; ++k)
      sum.sums[k] += std::bit_cast<double>(std::bit_cast<uint64_t>(wide) ^ ((place << k) & sign));
    sum.squares += wide * wide;
  }
  sum.elements += static_cast<int64_t>(values.size());
}

double distance(const Fingerprint& a, const Fingerprint& b) {
  double squares = 0;
  for (size_t k = 0; k < Fingerprint::projections; ++k) {
    const double difference = a.sums[k] - b.sums[k];
    squares += difference * difference;
  }
  return std::sqrt(squares / double{Fingerprint::projections});
}

std::vector<std::string> trained_tensors(const Plan& plan) {
  std::vector<std::string> names;
  for (const Unit& unit : plan.workload.units) {
    for (const UnitPiece& piece : unit.pieces)
      if (piece.piece.is_trainable && !piece.is_tied_copy) names.push_back(piece.piece.name);
  }
  return names;
}

std::vector<Fingerprint> fingerprints_of_gradients(Trainer& trainer, double loss_scale, Communicator& world) {
  const Context& context = trainer.model().context();
  const auto factor = static_cast<float>(1 / loss_scale);
  const auto read = [&](Range range, std::span<float> values) {
    to_host(context, trainer.model().summed_gradients().at(range),
            Tensor(values.data(), {range.count}, DType::f32));
    for (float& value : values) value *= factor;
  };
  return fingerprints(trainer, read, world);
}

std::vector<Fingerprint> fingerprints_of_weights(Trainer& trainer, Communicator& world) {
  HostState state(trainer, HostState::Parts::weights);
  state.get();
  const auto read = [&](Range range, std::span<float> values) {
    std::copy_n(state.weights().at(range).as<float>(), range.count, values.begin());
  };
  return fingerprints(trainer, read, world);
}

std::vector<std::string> unequal_replicas(Trainer& trainer, Communicator& world) {
  const int data = trainer.plan().mesh.data;
  if (data == 1 || trainer.model().held_parameters() == Held::shards) return {};
  trainer.finish_exchange();
  const auto read = [&](Range range, std::span<float> values) {
    to_host(trainer.model().context(), trainer.model().owned_parameters().at(range),
            Tensor(values.data(), {range.count}, DType::f32));
  };
  std::vector<Fingerprint> all = own_part(trainer, Held::whole, read), first = all;
  if (trainer.coordinate().data != 0) first.assign(all.size(), {});
  sum_over(world, all);
  sum_over(world, first);
  const std::vector<std::string> names = trained_tensors(trainer.plan());
  std::vector<std::string> unequal;
  for (size_t i = 0; i < names.size(); ++i)
    if (all[i].bits != first[i].bits * static_cast<uint64_t>(data)) unequal.push_back(names[i]);
  return unequal;
}

}  // namespace ptrain
