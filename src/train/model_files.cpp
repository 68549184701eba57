#include "src/train/model_files.h"

#include "parallel/comm/agree.h"
#include "parallel/run/grad_sync.h"
#include "src/model/init.h"
#include "src/train/store.h"

namespace ptrain {

std::vector<WantedSlice> wanted_slices(const std::vector<PlacedWeight>& placed, Tensor flat) {
  std::vector<WantedSlice> wanted;
  for (const PlacedWeight& weight : placed) {
    wanted.push_back({.name = weight.spec.piece.name,
                      .shape = weight.spec.piece.shape,
                      .slice = whole_of(weight.box),
                      .destination = slice(flat, {weight.offset, weight.box.numel()})});
  }
  return wanted;
}

void load_weights(Communicator& world, const HfDir& directory, const std::vector<PlacedWeight>& placed,
                  Tensor flat) {
  load_slices(world, source_of(directory), wanted_slices(placed, flat));
}

void initialise_weights(const ModelSpec& spec, const std::vector<PlacedWeight>& placed, uint64_t seed,
                        Tensor flat) {
  for (const PlacedWeight& weight : placed) initialise(weight, seed, spec.init_range, flat);
}

std::vector<HfTensor> model_tensors(const Plan& plan, DType dtype) {
  std::vector<HfTensor> tensors;
  for (size_t stage = 0; stage < plan.stages.size(); ++stage) {
    const Range units = plan.stages[stage].units;
    for (int64_t unit = units.begin; unit < units.end(); ++unit) {
      for (const UnitPiece& piece : plan.workload.units[static_cast<size_t>(unit)].pieces) {
        if (piece.is_tied_copy) continue;
        tensors.push_back({.name = piece.piece.name,
                           .shape = piece.piece.shape,
                           .dtype = dtype,
                           .group = static_cast<int>(stage)});
      }
    }
  }
  return tensors;
}

std::vector<WrittenSlice> written_slices(const Plan& plan, const Stage& stage, int rank) {
  std::vector<WrittenSlice> slices;
  const int data = plan.mesh.coordinate_of(rank).data;
  for (size_t i = 0; i < stage.placed().size(); ++i) {
    const PlacedWeight& weight = stage.placed()[i];
    if (weight.spec.is_tied_copy) continue;
    const auto counted = counted_box(weight.spec.piece.shape, weight.spec.piece.layout, plan.mesh, rank);
    if (!counted) continue;
    // What a rank counts of a shared weight are whole rows, so it lies in one piece inside the local box.
    const std::vector<Range> inside = flat_ranges(weight.box, *counted);
    check(inside.size() == 1, "{}: the counted part is in {} pieces", weight.spec.piece.name, inside.size());
    const Range part = part_of(counted->numel(), data, plan.mesh.data);
    if (part.count == 0) continue;
    slices.push_back({.weight = static_cast<int>(i),
                      .slice = {.box = *counted, .range = part},
                      .elements = {weight.offset + inside[0].begin + part.begin, part.count}});
  }
  return slices;
}

DType stored_dtype(const HfDir& directory) {
  return directory.tensors().empty() ? DType::f32 : directory.tensors().front().dtype;
}

DType checkpoint_dtype(const Config& config) {
  switch (config.checkpoint.dtype) {
    case Config::FileType::fp32:
      return DType::f32;
    case Config::FileType::bf16:
      return DType::bf16;
    case Config::FileType::fp16:
      return DType::f16;
    case Config::FileType::automatic:
      break;
  }
  return config.model.init == Config::Init::random ? DType::f32
                                                   : stored_dtype(HfDir::open(config.model.path));
}

void save_model(Communicator& world, const std::filesystem::path& source,
                const std::filesystem::path& directory, const Plan& plan, const Stage& stage, DType dtype) {
  const std::filesystem::path temporary = making_of(directory);
  agreed(world, [&] {
    if (world.rank() == 0) std::filesystem::remove_all(temporary);
  });
  HfWriter writer(world, temporary, plan_hf_files(model_tensors(plan, dtype)));
  agreed(world, [&] {
    for (const WrittenSlice& written : written_slices(plan, stage, world.rank())) {
      const PlacedWeight& weight = stage.placed()[static_cast<size_t>(written.weight)];
      writer.write(weight.spec.piece.name, written.slice, slice(stage.parameters(), written.elements));
    }
    writer.sync();
    if (world.rank() == 0) copy_small_files(source, temporary);
  });
  writer.finish();
  agreed(world, [&] {
    if (world.rank() == 0) replace_by_made(directory);
  });
}

}  // namespace ptrain
