// The loss of a model on files, outside of any run, on a grid of ranks.
#pragma once

#include <string>

#include "src/train/config_load.h"
#include "src/train/trainer.h"

namespace ptrain {

struct EvaluationReport {
  Evaluation evaluation;
  int64_t rows = 0;  // of the files
};

/// A collective: evaluates model.path on the files of data.train, in file order. data.sequence_length, where
/// it is not set, becomes min(the model's positions, the longest row); batch.global, where it is not set,
/// what the grid needs. `logits_file` not empty: rank 0 writes it, a safetensors file of logits.<row> (T, V)
/// f32, rows from 0 in file order, T the row's own length.
EvaluationReport evaluate_files(const LoadedConfig& loaded, Communicator& world, const RunDevice& device,
                                const std::string& logits_file);

}  // namespace ptrain
