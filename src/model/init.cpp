#include "src/model/init.h"

#include <algorithm>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

template <class T>
void fill_weight(const PlacedWeight& weight, uint64_t seed, double init_range, T* out) {
  if (weight.spec.init != Init::normal) {
    std::fill_n(out, weight.box.numel(), weight.spec.init == Init::ones ? T{1} : T{0});
    return;
  }
  const Rng rng(seed, hash_of(weight.spec.piece.name));
  for_each_run(weight.spec.piece.shape, weight.box, [&](int64_t global, int64_t local, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      out[local + i] = static_cast<T>(init_range * rng.normal(static_cast<uint64_t>(global + i)));
    }
  });
}

}  // namespace

void initialise(const PlacedWeight& weight, uint64_t seed, double init_range, Tensor flat) {
  if (flat.dtype == DType::f64) {
    fill_weight(weight, seed, init_range, flat.as<double>() + weight.offset);
  } else {
    fill_weight(weight, seed, init_range, flat.as<float>() + weight.offset);
  }
}

}  // namespace ptrain
