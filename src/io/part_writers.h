// Who writes what where nodes have disks of their own: which disk gets a tensor's weights, and bringing them
// there. Moments stay on the disk of the rank that has them.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "parallel/plan/mesh.h"
#include "src/io/checkpoint.h"
#include "src/io/hf_write.h"
#include "src/io/storage.h"

namespace ptrain {

/// The disks whose ranks hold all of a pipeline position's weights among them; where none does (a tensor
/// group that spans disks), those whose ranks hold some. Pure.
std::vector<int> disks_of_position(const Mesh& mesh, int position, const Disks& disks);

/// Names the disk that writes each tensor, as its part: of those that hold it, the one with the fewest bytes
/// so far, so that they differ by at most the largest tensor. Then sorts by group and part, and keeps the
/// order else: a file is of one part. position_of_group: the pipeline position of HfTensor::group. Pure.
void deal_to_disks(std::vector<HfTensor>& tensors, std::span<const int> position_of_group, const Mesh& mesh,
                   const Disks& disks);

/// What this rank's disk gets of a checkpoint.
SavePart part_of_checkpoint(const Storage& storage);
/// A collective: tells the parts of one save from those of another; empty on shared storage.
std::string name_of_save(const Storage& storage);

/// The part of every tensor, by name.
std::map<std::string, int> parts_of(std::span<const HfTensor> tensors);

/// Every rank's slices after the weights have gone to ranks of the disks that write them.
class MovedSlices {
 public:
  /// A collective. slices: of this rank; what their tensors hold stays until this object is gone. part_of: of
  /// every tensor.
  MovedSlices(const Storage& storage, std::span<const StateSlice> slices,
              const std::map<std::string, int>& part_of);

  /// What this rank writes on its disk: moments of its own, weights of its own and others'.
  const std::vector<StateSlice>& slices() const { return slices_; }

 private:
  std::vector<StateSlice> slices_;
  std::vector<std::vector<float>> received_;
};

}  // namespace ptrain
