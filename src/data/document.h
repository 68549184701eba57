// What a row of data becomes: its tokens and which of them are supervised.
// Not how documents are put into rows of a batch: that is packing's work.
#pragma once

#include <cstdint>
#include <vector>

namespace ptrain {

/// The label of a token that is not supervised.
inline constexpr int32_t not_supervised = -100;

/// Tokens of one sample. `labels` is aligned with `ids` and as long: labels[t] is ids[t], or -100 where the
/// token is not supervised (the model shifts by one inside).
struct Document {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
};

}  // namespace ptrain
