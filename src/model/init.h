// Random initial weights: the same bits on every grid, since each element is a function of (seed, HF name,
// global index).
#pragma once

#include "src/model/weights.h"

namespace ptrain {

/// Fills one placed weight in the stage's flat buffer: normal(0, init_range), ones or zeros.
void initialise(const PlacedWeight& weight, uint64_t seed, double init_range, Tensor flat);

/// Calls `each(row_major_begin, local_offset, count)` for the runs of `box` that are contiguous in the global
/// tensor: global element row_major_begin + i is the box's element local_offset + i.
template <class Each>
void for_each_run(const Shape& shape, const Box& box, Each each) {
  const int64_t width = box.extent.columns();
  const int64_t rows = box.extent.rows();
  for (int64_t row = 0; row < rows; ++row) {
    int64_t index = row, global = 0, stride = shape.columns();
    for (int dim = shape.dims() - 2; dim >= 0; --dim) {  // the row's global number, dimension by dimension
      global += (index % box.extent[dim] + box.begin[static_cast<size_t>(dim)]) * stride;
      index /= box.extent[dim];
      stride *= shape[dim];
    }
    each(global + box.begin[static_cast<size_t>(shape.dims() - 1)], row * width, width);
  }
}

}  // namespace ptrain
