#include "launch/bench/workbench.h"

#include <memory>

#include "kernels/base/stream.h"
#include "src/model/host_flat.h"

namespace ptrain::bench {
namespace {

constexpr int64_t random_elements = (int64_t{4} << 20) + 40961;  // odd against every size of a layer

/// f32, between -1 and 1; its statistics do not matter here.
OwnedTensor random_numbers(int64_t count) {
  OwnedTensor numbers({count}, DType::f32);
  uint64_t state = 0x9e3779b97f4a7c15u;
  for (float& x : numbers.view.span<float>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<double>(state >> 40) * 0x1p-23 - 1.0);
  }
  return numbers;
}

bool is_8_bit_float(DType dtype) {
  return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2;
}

/// Finite 8-bit floats of either kind: exponents of all ones are left out.
OwnedTensor random_bytes(int64_t count, DType dtype) {
  OwnedTensor bytes({count}, dtype);
  const OwnedTensor numbers = random_numbers(count);
  const auto* number = numbers.view.as<float>();
  auto* byte = static_cast<uint8_t*>(bytes.view.data);
  for (int64_t i = 0; i < count; ++i) {
    const int value = static_cast<int>(number[i] * 119.0f);  // below 0x78, the first with all ones in e5m2
    byte[i] = static_cast<uint8_t>(value < 0 ? 0x80 - value : value);
  }
  return bytes;
}

}  // namespace

void transfer_now(const Context& context, Tensor from, Tensor to) {
  const Stream none;
  const Stream& stream = context.stream == nullptr ? none : *context.stream;
  transfer(from, to, stream);
  stream.synchronize();
}

void tile(const Context& context, Tensor block, int64_t first, Tensor to) {
  const Stream none;
  const Stream& stream = context.stream == nullptr ? none : *context.stream;
  int64_t from = first % block.numel();
  for (int64_t at = 0; at < to.numel();) {
    const int64_t count = std::min(block.numel() - from, to.numel() - at);
    transfer(Tensor(block.at(from), {count}, block.dtype, block.device),
             Tensor(to.at(at), {count}, to.dtype, to.device), stream);
    at += count;
    from = 0;
  }
}

Tensor Tensors::zeros(Shape shape, DType dtype) {
  return owned_.emplace_back(shape, dtype, bench_.context().device).view;
}

Tensor Tensors::random(Shape shape, DType dtype) {
  const Tensor tensor = zeros(shape, dtype);
  // Every tensor begins elsewhere in the block.
  tile(bench_.context(), bench_.random_block(dtype), static_cast<int64_t>(owned_.size()) * 7919, tensor);
  return tensor;
}

Tensor Tensors::integers(int64_t count, const std::function<int64_t(int64_t)>& value) {
  const OwnedTensor host({count}, DType::i32);
  for (int64_t i = 0; i < count; ++i) host.view.as<int32_t>()[i] = static_cast<int32_t>(value(i));
  return copy_of(host.view);
}

Tensor Tensors::copy_of(Tensor host) {
  const Tensor tensor = zeros(host.shape, host.dtype);
  transfer_now(bench_.context(), host, tensor);
  return tensor;
}

int64_t Tensors::bytes() const {
  int64_t bytes = 0;
  for (const OwnedTensor& tensor : owned_) bytes += tensor.view.bytes();
  return bytes;
}

Workbench::Workbench(const Context& context, const ScratchSizes& sizes, int64_t ballast_bytes)
    : context_(context), stopwatch_(context, ballast_bytes) {
  const int64_t bytes = op_scratch_bytes(context.device.kind, sizes);
  if (bytes == 0) return;
  scratch_ = OwnedTensor({bytes}, DType::u8, context.device);
  context_.scratch = scratch_.view;
}

double Workbench::seconds(const Prepare& prepare, double budget_s) {
  std::vector<std::unique_ptr<Tensors>> sets;
  std::vector<Call> calls;
  const auto make = [&] {
    sets.push_back(std::make_unique<Tensors>(*this));
    calls.push_back(prepare(*sets.back()));
  };
  make();
  const int64_t copies = stopwatch_.copies_beyond_cache(sets.front()->bytes());
  for (int64_t i = 1; i < copies; ++i) make();
  const double s = stopwatch_.seconds(calls, budget_s);
  if (context_.stream != nullptr) context_.stream->synchronize();
  return s;
}

Tensor Workbench::random_block(DType dtype) {
  OwnedTensor& block = blocks_[dtype];
  if (block.view) return block.view;
  block = OwnedTensor({random_elements}, dtype, context_.device);
  if (is_8_bit_float(dtype)) {
    transfer_now(context_, random_bytes(random_elements, dtype).view, block.view);
  } else {
    from_host(context_, random_numbers(random_elements).view, block.view);
  }
  return block.view;
}

ScratchSizes sizes_of(const ModelSpec& spec, int64_t B, int64_t T, const Compute& compute) {
  return {.B = B,
          .T = T,
          .N = B * T,
          .C = spec.C,
          .F = spec.F,
          .V = spec.V,
          .H = spec.H,
          .K = spec.K,
          .D = spec.D,
          .dtype = state_types(compute.precision).param,
          .is_fp8 = compute.precision == Config::Precision::fp8};
}

}  // namespace ptrain::bench
