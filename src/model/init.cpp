#include "src/model/init.h"

#include <algorithm>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

template <class T>
void draw(const Rng& rng, double init_range, Range place, T* out) {
  for (int64_t i = 0; i < place.count; ++i)
    out[i] = static_cast<T>(init_range * rng.normal(static_cast<uint64_t>(place.begin + i)));
}

template <class T>
void fill_weight(const PlacedWeight& weight, uint64_t seed, double init_range, T* out) {
  if (weight.spec.init != Init::normal) {
    std::fill_n(out, weight.box.numel(), weight.spec.init == Init::ones ? T{1} : T{0});
    return;
  }
  const Rng rng(seed, hash_of(weight.spec.piece.name));
  for_each_run(weight.spec.piece.shape, weight.box, [&](int64_t global, int64_t local, int64_t count) {
    draw(rng, init_range, {global, count}, out + local);
  });
}

}  // namespace

void draw_normal(std::string_view name, uint64_t seed, double init_range, Range place, Tensor out) {
  const Rng rng(seed, hash_of(name));
  if (out.dtype == DType::f64) {
    draw(rng, init_range, place, out.as<double>());
  } else {
    draw(rng, init_range, place, out.as<float>());
  }
}

void initialise(const PlacedWeight& weight, uint64_t seed, double init_range, Tensor flat) {
  if (flat.dtype == DType::f64) {
    fill_weight(weight, seed, init_range, flat.as<double>() + weight.offset);
  } else {
    fill_weight(weight, seed, init_range, flat.as<float>() + weight.offset);
  }
}

}  // namespace ptrain
