#include "src/model/host_flat.h"

#include <algorithm>

#include "kernels/base/stream.h"
#include "kernels/ops/elementwise.h"

namespace ptrain {
namespace {

constexpr int64_t chunk_elements = int64_t{8} << 20;

Tensor part_of_flat(Tensor tensor, int64_t begin, int64_t count) {
  return Tensor(tensor.at(begin), {count}, tensor.dtype, tensor.device);
}

/// Calls each(begin, count, staging) for the tensor's chunks; staging: host memory that its device copies.
template <class Each>
void over_chunks(const Context& context, Tensor tensor, Each each) {
  const int64_t most = std::min(chunk_elements, tensor.numel());
  const Buffer buffer = Buffer::staging(most * size_bytes(tensor.dtype), context.device);
  for (int64_t begin = 0; begin < tensor.numel(); begin += most) {
    const int64_t count = std::min(most, tensor.numel() - begin);
    each(begin, count, Tensor(buffer.data(), {count}, tensor.dtype));
  }
}

}  // namespace

Context host_context(const Context& context) {
  Context host;
  host.threads = context.threads;
  return host;
}

void transfer(const Context& context, Tensor from, Tensor to) {
  if (context.stream == nullptr) return transfer(from, to, Stream());
  transfer(from, to, *context.stream);
}

void to_host(const Context& context, Tensor from, Tensor host) {
  Context cpu = host_context(context);
  if (from.device.kind == DeviceKind::cpu)
    return copy(cpu, part_of_flat(from, 0, from.numel()), part_of_flat(host, 0, host.numel()));
  over_chunks(context, from, [&](int64_t begin, int64_t count, Tensor staging) {
    transfer(part_of_flat(from, begin, count), staging, *context.stream);
    context.stream->synchronize();
    copy(cpu, staging, part_of_flat(host, begin, count));
  });
}

void from_host(const Context& context, Tensor host, Tensor to) {
  Context cpu = host_context(context);
  if (to.device.kind == DeviceKind::cpu)
    return copy(cpu, part_of_flat(host, 0, host.numel()), part_of_flat(to, 0, to.numel()));
  over_chunks(context, to, [&](int64_t begin, int64_t count, Tensor staging) {
    copy(cpu, part_of_flat(host, begin, count), staging);
    transfer(staging, part_of_flat(to, begin, count), *context.stream);
    context.stream->synchronize();
  });
}

HostFlat::HostFlat(const Context& context, Tensor flat, DType dtype)
    : context_(context), flat_(flat), view_(flat) {
  if (flat.device.kind == DeviceKind::cpu && flat.dtype == dtype) return;
  own_ = Buffer(flat.numel() * size_bytes(dtype));
  view_ = Tensor(own_.data(), flat.shape, dtype);
}

void HostFlat::get() {
  if (!is_itself()) to_host(context_, flat_, view_);
}

void HostFlat::put() {
  if (!is_itself()) from_host(context_, view_, flat_);
}

}  // namespace ptrain
