#include "src/io/elements.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace ptrain {
namespace {

/// bf16 as it lies in memory: the upper half of an f32.
struct BFloat16 {
  uint16_t bits;
};

float widen(float value) {
  return value;
}
float widen(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
float widen(_Float16 value) {
  return static_cast<float>(value);
}
double widen(double value) {
  return value;
}

/// To f32 such that a second rounding, to 16 bits, gives what one rounding would: inexact values become odd.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(value)) return nearest;
  auto bits = std::bit_cast<uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value))
    --bits;  // towards zero; from inf to the largest
  return std::bit_cast<float>(bits | 1u);
}
float round_to_odd(float value) {
  return value;
}

template <class From>
void narrow(From value, double& out) {
  out = static_cast<double>(value);
}
template <class From>
void narrow(From value, float& out) {
  out = static_cast<float>(value);
}
template <class From>
void narrow(From value, _Float16& out) {
  out = static_cast<_Float16>(round_to_odd(value));
}
template <class From>
void narrow(From value, BFloat16& out) {
  const auto bits = std::bit_cast<uint32_t>(round_to_odd(value));
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  out.bits = static_cast<uint16_t>((is_nan ? bits | 0x400000u : rounded) >> 16);
}

template <class From, class To>
void convert(const void* source, void* destination, int64_t count) {
  const auto* from = static_cast<const From*>(source);
  auto* to = static_cast<To*>(destination);
  for (int64_t i = 0; i < count; ++i) narrow(widen(from[i]), to[i]);
}

template <class From>
void convert_from(const void* source, void* destination, DType to, int64_t count) {
  switch (to) {
    case DType::f64:
      return convert<From, double>(source, destination, count);
    case DType::f32:
      return convert<From, float>(source, destination, count);
    case DType::bf16:
      return convert<From, BFloat16>(source, destination, count);
    default:
      return convert<From, _Float16>(source, destination, count);
  }
}

bool is_convertible(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

}  // namespace

void convert_elements(const void* source, DType from, void* destination, DType to, int64_t count) {
  if (from == to) {
    if (count > 0) std::memcpy(destination, source, static_cast<size_t>(count * size_bytes(from)));
    return;
  }
  check(is_convertible(from) && is_convertible(to), ExitCode::input,
        "elements of type {} cannot be turned into {}: f64, f32, bf16 and f16 can", name_of(from),
        name_of(to));
  switch (from) {
    case DType::f64:
      return convert_from<double>(source, destination, to, count);
    case DType::f32:
      return convert_from<float>(source, destination, to, count);
    case DType::bf16:
      return convert_from<BFloat16>(source, destination, to, count);
    default:
      return convert_from<_Float16>(source, destination, to, count);
  }
}

std::optional<DType> float_dtype_of(std::string_view name) {
  if (name == "f32" || name == "fp32" || name == "float32") return DType::f32;
  if (name == "bf16" || name == "bfloat16") return DType::bf16;
  if (name == "f16" || name == "fp16" || name == "float16") return DType::f16;
  return std::nullopt;
}

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "float64";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    default:
      return "float32";
  }
}

}  // namespace ptrain
