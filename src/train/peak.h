// How fast a node multiplies, as `ptrain bench gemm` found it: kept in a small JSON file, a record for each
// CPU model and number of threads at work, or GPU and type of its products, and read by training for MFU. Not
// for measuring.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// Whose speed it is: all threads that compute on one node at the same time, over all its ranks; or all GPUs.
struct PeakKey {
  std::string cpu;  // or a GPU's name and what it multiplies, "NVIDIA H200, bf16"
  int threads = 1;  // or ranks
};

struct NodePeak {
  double sgemm_flops = 0;       // a second: the best matrix product (a CPU's in f32); MFU is a share of it
  double fma_flops = 0;         // a second: multiply-adds on registers alone; of GPUs sgemm_flops
  double read_bytes_per_s = 0;  // of memory that no cache holds; of GPUs their copies, read and written
};

/// The processor's name, family and model as Linux says them, "AMD EPYC (25/17)"; "unknown CPU" where it does
/// not.
std::string cpu_model();

/// The record of `key`, or nothing where the file is missing, damaged or has none: a guess would be worse.
std::optional<NodePeak> read_peak(const std::filesystem::path& file, const PeakKey& key);

/// Puts the record in, in the place of an older one; others stay. Makes the file's directory.
/// Errors: ExitCode::resources.
void write_peak(const std::filesystem::path& file, const PeakKey& key, const NodePeak& peak);

/// A collective: FLOP/s of all ranks together from what each knows of its node, or nothing where one does not
/// know. `node_flops` is the whole node's, of which each of its ranks brings its part.
std::optional<double> peak_of_job(Communicator& world, std::optional<double> node_flops, int ranks_on_node);

}  // namespace ptrain
