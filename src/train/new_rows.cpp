#include "src/train/new_rows.h"

#include <algorithm>
#include <map>

#include "kernels/base/progress.h"
#include "parallel/comm/agree.h"
#include "src/io/elements.h"
#include "src/model/init.h"
#include "src/model/weights.h"

namespace ptrain {
namespace {

/// Elements of a tensor that no file has: `place` in its row-major order.
struct NewElements {
  std::string name;
  Range place;
  Tensor destination;
};

/// The tensors with a row for each token.
std::vector<WeightSpec> vocabulary_weights(const ModelSpec& spec) {
  std::vector<WeightSpec> weights = weights_of(spec, SequenceParallel::off, false);
  std::erase_if(weights, [](const WeightSpec& weight) {
    return weight.role != Role::embedding && weight.role != Role::head;
  });
  return weights;
}

/// Cuts a slice back to the rows that its file has, and returns what lay behind them. Whole rows lie one
/// after the other in a box of the vocabulary, which is cut along its rows alone.
NewElements cut_new_rows(WantedSlice& wanted, int64_t stored_rows) {
  const int64_t C = wanted.shape[1];
  Slice& slice = wanted.slice;
  const int64_t first_row = slice.box.begin[0];
  const int64_t rows = std::clamp<int64_t>(stored_rows - first_row, 0, slice.box.extent[0]);
  const int64_t old = std::clamp<int64_t>(rows * C - slice.range.begin, 0, slice.range.count);
  const Range behind{slice.range.begin + old, slice.range.count - old};
  NewElements cut{.name = wanted.name,
                  .place = {first_row * C + behind.begin, behind.count},
                  .destination = ptrain::slice(wanted.destination, {old, behind.count})};
  wanted.destination = ptrain::slice(wanted.destination, {0, old});
  wanted.shape = Shape{stored_rows, C};
  slice = {.box = {.begin = slice.box.begin, .extent = Shape{rows, C}}, .range = {slice.range.begin, old}};
  return cut;
}

/// Of each column of a stored matrix.
std::vector<double> column_means(const HfDir& directory, const std::string& name, Shape shape) {
  constexpr int64_t rows_at_once = 1024;
  const int64_t C = shape[1];
  std::vector<double> means(static_cast<size_t>(C), 0.0);
  const OwnedTensor block({rows_at_once, C}, DType::f32);
  for (int64_t row = 0; row < shape[0]; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, shape[0] - row);
    const Tensor values(block.view.data, {count, C}, DType::f32);
    progress::tick();
    directory.read_box(name, {.begin = {row, 0}, .extent = values.shape}, values);
    const auto* value = values.as<float>();
    for (int64_t i = 0; i < count; ++i)
      for (double& mean : means) mean += *value++;
  }
  for (double& mean : means) mean /= static_cast<double>(shape[0]);
  return means;
}

/// Collective: what rank 0 reads, for all.
std::vector<double> shared_means(Communicator& world, const HfDir& directory, const WeightSpec& weight,
                                 int64_t stored_rows) {
  const int64_t C = weight.piece.shape[1];
  std::vector<double> means(static_cast<size_t>(C));
  agreed(world, [&] {
    if (world.rank() == 0) means = column_means(directory, weight.piece.name, {stored_rows, C});
  });
  world.broadcast(Tensor(means.data(), {C}, DType::f64), 0);
  return means;
}

}  // namespace

void load_base_weights(Communicator& world, const HfDir& directory, const BaseModel& base,
                       std::vector<WantedSlice> wanted) {
  if (base.new_rows.count == 0) return void(load_slices(world, source_of(directory), wanted));
  const int64_t stored_rows = base.new_rows.begin;
  const std::vector<WeightSpec> weights = vocabulary_weights(base.spec);
  std::vector<NewElements> fresh;
  for (WantedSlice& each : wanted) {
    const bool is_cut = std::ranges::any_of(
        weights, [&](const WeightSpec& weight) { return weight.piece.name == each.name; });
    if (is_cut) fresh.push_back(cut_new_rows(each, stored_rows));
  }
  std::erase_if(wanted, [](const WantedSlice& each) { return each.slice.numel() == 0; });
  load_slices(world, source_of(directory), wanted);

  std::map<std::string, std::vector<double>> means;
  if (base.new_rows.init == Config::NewTokenInit::mean)
    for (const WeightSpec& weight : weights)
      means[weight.piece.name] = shared_means(world, directory, weight, stored_rows);
  for (const NewElements& each : fresh) {
    if (each.place.count == 0) continue;
    const OwnedTensor values({each.place.count}, DType::f32);
    if (means.empty()) {
      draw_normal(each.name, base.new_rows.seed, base.spec.init_range, each.place, values.view);
    } else {
      const std::vector<double>& mean = means.at(each.name);
      for (int64_t i = 0; i < each.place.count; ++i)
        values.view.as<float>()[i] =
            static_cast<float>(mean[static_cast<size_t>(each.place.begin + i) % mean.size()]);
    }
    convert_elements(values.view.data, DType::f32, each.destination.data, each.destination.dtype,
                     each.place.count);
  }
}

}  // namespace ptrain
