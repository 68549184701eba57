// A stage's weights from an HF directory or from a seed, and to an HF directory: which slices a rank reads
// and writes.
#pragma once

#include <filesystem>
#include <vector>

#include "parallel/plan/plan.h"
#include "src/io/hf_dir.h"
#include "src/io/hf_write.h"
#include "src/io/load.h"
#include "src/io/storage.h"
#include "src/train/base_model.h"
#include "src/train/config.h"
#include "src/train/trainer.h"

namespace ptrain {

/// Collective: reads the weights of all ranks, each byte once, and makes the new rows of `base`. A tied table
/// may be stored under the name of the embedding alone. Errors: ExitCode::input, with what config.json says
/// where a shape differs. parameters: on any device; of a trainer its master values too.
void load_weights(Communicator& world, const HfDir& directory, const BaseModel& base,
                  const std::vector<PlacedWeight>& placed, const Context& context, Tensor parameters);
void load_weights(Communicator& world, const HfDir& directory, const BaseModel& base, Trainer& trainer);

/// Random weights by (seed, name, index).
void initialise_weights(uint64_t seed, Trainer& trainer);

/// The model's tensors in the order of the layers, without the tied copy. Their group is the pipeline stage.
std::vector<HfTensor> model_tensors(const Plan& plan, DType dtype);

/// The same, each with the disk that writes it as its part.
std::vector<HfTensor> model_tensors(const Plan& plan, DType dtype, const Disks& disks);

/// The dtype of the tensors in a directory (the first weight's); f32 where it has none.
DType stored_dtype(const HfDir& directory);

/// The dtype that the run's safetensors files get: checkpoint.dtype, `auto` resolved.
DType checkpoint_dtype(const Config& config);

/// Collective: an HF directory of the trained weights: config.json, tokenizer files, safetensors.
/// Written beside and renamed, so that `directory` is whole or not there. On several disks: on the first one,
/// where the weights of all travel to, 256 MB at a time.
/// small_files: of the first rank; others need not have them.
void save_model(const Storage& storage, const SmallFiles& small_files, const std::filesystem::path& directory,
                Trainer& trainer, DType dtype);

}  // namespace ptrain
