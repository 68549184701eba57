// A small model's training state for tests of checkpoints: its pieces, how meshes cut them, and a number for
// every element, so that what is loaded can be judged without what was saved.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "parallel/plan/mesh.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/find.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {

inline const Split rows{.dim = 0, .axis = Axis::tensor, .unit = 1, .group = 1};
inline const Split columns{.dim = 1, .axis = Axis::tensor, .unit = 1, .group = 1};

/// A model of odd sizes: layers belong to pipeline stages, weights are cut along the tensor axis.
inline std::vector<Piece> pieces() {
  std::vector<Piece> result = {{"embed", Shape{199, 24}, DType::f32, {{rows}}},
                               {"norm", Shape{23}, DType::f32, {}}};
  for (int layer = 0; layer < 5; ++layer) {
    const std::string name = fmt::format("layers.{}.", layer);
    result.push_back(
        {name + "k", Shape{14, 24}, DType::f32, {{{.dim = 0, .axis = Axis::tensor, .unit = 7, .group = 3}}}});
    result.push_back({name + "down", Shape{24, 31}, DType::f32, {{columns}}});
  }
  return result;
}

/// The stage of a piece: layers are shared out, the rest lies on the first one.
inline int stage_of(const Piece& piece, const Mesh& mesh) {
  if (!piece.name.starts_with("layers.")) return 0;
  return (piece.name[7] - '0') * mesh.pipeline / 5;
}

/// A number for each element, kind and step, with more bits than bf16 holds.
inline float value_at(std::string_view name, int64_t position, int kind, int64_t step) {
  return static_cast<float>((static_cast<int64_t>(name.size()) * 7919 + position * 31 + step * 17) % 65521) /
             1024.0f +
         static_cast<float>(kind) * 100.0f;
}

/// This rank's part of the state, filled or empty, with the storage that the tensors point into.
struct State {
  std::vector<StateSlice> slices;
  std::vector<std::vector<float>> storage;

  Tensor add(int64_t count) {
    storage.emplace_back(static_cast<size_t>(count), -1.0f);
    return Tensor(storage.back().data(), Shape{count}, DType::f32);
  }
};

inline std::vector<float> values_of(const Piece& piece, const Slice& slice, int kind, int64_t step) {
  std::vector<float> whole(static_cast<size_t>(piece.shape.numel()));
  for (size_t i = 0; i < whole.size(); ++i)
    whole[i] = value_at(piece.name, static_cast<int64_t>(i), kind, step);
  std::vector<float> part(static_cast<size_t>(slice.numel()));
  copy_common(whole_of(piece.shape), whole.data(), DType::f32, slice, part.data(), DType::f32);
  return part;
}

/// What a rank writes: its share, along the data axis, of the boxes that it counts; ZeRO shards in fact.
inline State state_to_write(const Mesh& mesh, int rank, int64_t step) {
  State state;
  for (const Piece& piece : pieces()) {
    const auto box = counted_box(piece.shape, piece.layout, mesh, rank);
    const Coordinate at = mesh.coordinate_of(rank);
    if (!box || stage_of(piece, mesh) != at.pipeline) continue;
    const Slice slice{*box, part_of(box->numel(), at.data, mesh.data)};
    StateSlice part{piece.name, piece.shape, slice, {}, {}, {}};
    Tensor* const tensors[] = {&part.weight, &part.first_moment, &part.second_moment};
    for (int kind = 0; kind < 3; ++kind) {
      state.storage.push_back(values_of(piece, slice, kind, step));
      *tensors[kind] = Tensor(state.storage.back().data(), Shape{slice.numel()}, DType::f32);
    }
    state.slices.push_back(part);
  }
  return state;
}

/// What a rank wants: the whole of its boxes for the weights, its shard of the moments.
inline State state_to_load(const Mesh& mesh, int rank) {
  State state;
  for (const Piece& piece : pieces()) {
    const Coordinate at = mesh.coordinate_of(rank);
    if (stage_of(piece, mesh) != at.pipeline) continue;
    const Box box = local_box(piece.shape, piece.layout, mesh, rank);
    state.slices.push_back({piece.name, piece.shape, whole_of(box), state.add(box.numel()), {}, {}});
    const Slice shard{box, part_of(box.numel(), at.data, mesh.data)};
    const Tensor first = state.add(shard.numel()), second = state.add(shard.numel());
    state.slices.push_back({piece.name, piece.shape, shard, {}, first, second});
  }
  return state;
}

inline void expect_loaded(const State& state, int64_t step, DType weight_dtype = DType::f32) {
  for (const StateSlice& slice : state.slices) {
    const Piece piece{slice.name, slice.shape, DType::f32, {}};
    const Tensor tensors[] = {slice.weight, slice.first_moment, slice.second_moment};
    for (int kind = 0; kind < 3; ++kind) {
      if (!tensors[kind]) continue;
      const std::vector<float> expected = values_of(piece, slice.slice, kind, step);
      const auto* found = tensors[kind].as<float>();
      ASSERT_EQ(std::vector<float>(found, found + slice.slice.numel()), expected)
          << slice.name << " " << to_string(slice.slice) << " kind " << kind << " " << name_of(weight_dtype);
    }
  }
}

inline SaveRequest request_for(const std::filesystem::path& root, int64_t step, DType dtype = DType::f32,
                               int64_t keep = 2) {
  SaveRequest request{
      .root = root, .step = step, .keep = keep, .run = {{"position", step * 64}, {"model", "a"}}};
  for (const Piece& piece : pieces()) request.tensors.push_back({piece.name, piece.shape, dtype});
  return request;
}

inline void save(const Mesh& mesh, const SaveRequest& request) {
  run_ranks(mesh.world(), [&](Communicator& world) {
    const State state = state_to_write(mesh, world.rank(), request.step);
    EXPECT_EQ(save_checkpoint(world, request, state.slices), request.root / checkpoint_name(request.step));
  });
}

/// Flips a byte of a file.
inline void damage(const std::filesystem::path& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 0x40));
}

}  // namespace ptrain
