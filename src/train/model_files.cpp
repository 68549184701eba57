#include "src/train/model_files.h"

#include "parallel/comm/agree.h"
#include "parallel/run/flat_memory.h"
#include "src/model/host_flat.h"
#include "src/model/init.h"
#include "src/train/state_files.h"
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

void load_weights(Communicator& world, const HfDir& directory, const std::vector<PlacedWeight>& placed,
                  const Context& context, Tensor parameters) {
  HostFlat host(context, parameters, parameters.dtype);
  load_weights(world, directory, placed, host.view());
  host.put();
}

void load_weights(Communicator& world, const HfDir& directory, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  std::vector<WantedSlice> wanted;
  for (const StateSlice& slice : slices_to_load(trainer, state)) {
    if (slice.weight)
      wanted.push_back(
          {.name = slice.name, .shape = slice.shape, .slice = slice.slice, .destination = slice.weight});
  }
  load_slices(world, source_of(directory), wanted);
  state.put();
}

void initialise_weights(uint64_t seed, Trainer& trainer) {
  HostState state(trainer, HostState::Parts::weights);
  for (const PlacedWeight& weight : trainer.model().placed()) {
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
                const std::filesystem::path& directory, Trainer& trainer, DType dtype) {
  const std::filesystem::path temporary = making_of(directory);
  agreed(world, [&] {
    if (world.rank() == 0) std::filesystem::remove_all(temporary);
  });
  HfWriter writer(world, temporary, plan_hf_files(model_tensors(trainer.plan(), dtype)));
  agreed(world, [&] {
    HostState state(trainer, HostState::Parts::weights);
    state.get();
    for (const StateSlice& written : slices_to_save(trainer, state))
      writer.write(written.name, written.slice, written.weight);
    writer.sync();
    if (world.rank() == 0) copy_small_files(source, temporary);
  });
  writer.finish();
  agreed(world, [&] {
    if (world.rank() == 0) replace_by_made(directory);
  });
}

}  // namespace ptrain
