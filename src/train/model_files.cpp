#include "src/train/model_files.h"

#include <functional>
#include <optional>

#include "kernels/base/progress.h"
#include "parallel/comm/agree.h"
#include "parallel/run/flat_memory.h"
#include "src/io/part_writers.h"
#include "src/model/host_flat.h"
#include "src/model/init.h"
#include "src/train/new_rows.h"
#include "src/train/state_files.h"
#include "src/train/store.h"

namespace ptrain {
namespace {

constexpr int64_t batch_bytes = int64_t{256} << 20;

/// The end of the tensors from `begin` on that together take a batch's bytes in f32, one at least.
size_t end_of_batch(const std::vector<HfTensor>& tensors, size_t begin) {
  int64_t bytes = 0;
  size_t end = begin;
  while (end < tensors.size() && (end == begin || bytes < batch_bytes))
    bytes += tensors[end++].shape.numel() * size_bytes(DType::f32);
  return end;
}

/// What this rank wants of the model's files: its local boxes, into `flat` at their places.
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

}  // namespace

void load_weights(Communicator& world, const HfDir& directory, const BaseModel& base,
                  const std::vector<PlacedWeight>& placed, const Context& context, Tensor parameters) {
  HostFlat host(context, parameters, parameters.dtype);
  load_base_weights(world, directory, base, wanted_slices(placed, host.view()));
  host.put();
}

void load_weights(Communicator& world, const HfDir& directory, const BaseModel& base, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  std::vector<WantedSlice> wanted;
  for (const StateSlice& slice : slices_to_load(trainer, state)) {
    if (slice.weight)
      wanted.push_back(
          {.name = slice.name, .shape = slice.shape, .slice = slice.slice, .destination = slice.weight});
  }
  load_base_weights(world, directory, base, std::move(wanted));
  state.put();
}

void initialise_weights(uint64_t seed, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  for (const PlacedWeight& weight : trainer.model().placed()) {
    progress::tick();
    const OwnedTensor box({weight.box.numel()}, DType::f32);
    PlacedWeight alone = weight;
    alone.offset = 0;
    initialise(alone, seed, trainer.model().spec().init_range, box.view);
    state.set(weight, box.view);
  }
  state.put();
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

std::vector<HfTensor> model_tensors(const Plan& plan, DType dtype, const Disks& disks) {
  std::vector<HfTensor> tensors = model_tensors(plan, dtype);
  std::vector<int> positions;
  for (const StagePlan& stage : plan.stages) positions.push_back(stage.position);
  deal_to_disks(tensors, positions, plan.mesh, disks);
  return tensors;
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

void save_model(const Storage& storage, const SmallFiles& small_files, const std::filesystem::path& directory,
                Trainer& trainer, DType dtype) {
  Communicator& world = storage.world();
  const std::filesystem::path temporary = making_of(directory);
  const std::vector<HfTensor> tensors = model_tensors(trainer.plan(), dtype);
  std::optional<HostState> state;
  agreed(world, [&] {
    state.emplace(trainer, HostState::Parts::weights);
    state->get();
    if (world.rank() == 0) std::filesystem::remove_all(temporary);
  });
  const std::vector<StateSlice> slices = slices_to_save(trainer, *state);

  // The ranks of the first disk write; what goes wrong there is told to the others at the end of a step.
  FirstError first;
  const auto tried = [&](const auto& work) {
    if (storage.disk() == 0) first.tried(work);
  };
  std::optional<HfWriter> writer;
  tried([&] { writer.emplace(storage.group(), temporary, plan_hf_files(tensors)); });
  agree(world, first.error());
  for (size_t begin = 0; begin < tensors.size();) {
    const size_t end = storage.disks().count() == 1 ? tensors.size() : end_of_batch(tensors, begin);
    std::map<std::string, int> part_of;
    for (size_t i = begin; i < end; ++i) part_of[tensors[i].name] = 0;
    std::vector<StateSlice> some;
    for (const StateSlice& slice : slices)
      if (part_of.contains(slice.name)) some.push_back(slice);
    const MovedSlices moved(storage, some, part_of);
    tried([&] {
      for (const StateSlice& slice : moved.slices())
        if (slice.weight) writer->write(slice.name, slice.slice, slice.weight);
    });
    agree(world, first.error());
    begin = end;
  }
  tried([&] {
    agreed(storage.group(), [&] {
      writer->sync();
      if (world.rank() == 0) copy_small_files(small_files, temporary);
    });
    writer->finish();
    if (world.rank() == 0) replace_by_made(directory);
  });
  agree(world, first.error());
}

}  // namespace ptrain
