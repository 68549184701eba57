#include "kernels/base/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/runtime.h"

namespace ptrain {
namespace {

constexpr int64_t page_bytes = 4096;
constexpr int64_t huge_page_bytes = int64_t{2} << 20;

int64_t mapped_bytes(int64_t bytes) {
  const int64_t unit = bytes >= huge_page_bytes ? huge_page_bytes : page_bytes;
  return (bytes + unit - 1) / unit * unit;
}

void* map_aligned(int64_t bytes) {
  const int64_t want = mapped_bytes(bytes);
  const int64_t slack = want >= huge_page_bytes ? huge_page_bytes : 0;
  void* raw = mmap(nullptr, static_cast<size_t>(want + slack), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(raw != MAP_FAILED, ExitCode::resources, "no memory for {} bytes: {}", bytes, std::strerror(errno));
  if (slack == 0) return raw;
  // Cut the ends off, so that what stays starts on a huge page and can be backed by huge pages.
  const auto address = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (address + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
  if (aligned > address) munmap(raw, aligned - address);
  const uintptr_t end = address + static_cast<uintptr_t>(want + slack);
  const uintptr_t aligned_end = aligned + static_cast<uintptr_t>(want);
  if (end > aligned_end) munmap(reinterpret_cast<void*>(aligned_end), end - aligned_end);
  madvise(reinterpret_cast<void*>(aligned), static_cast<size_t>(want), MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

}  // namespace

Buffer::Buffer(int64_t bytes, Device device) : bytes_(bytes), device_(device) {
  check(bytes >= 0, "a buffer of {} bytes", bytes);
  if (bytes == 0) return;
  data_ = device.kind == DeviceKind::cpu
              ? map_aligned(bytes)
              : runtime::allocate(bytes, runtime::MemoryKind::device, device.index);
}

Buffer Buffer::staging(int64_t bytes, Device device) {
  if (device.kind == DeviceKind::cpu) return Buffer(bytes);
  Buffer buffer;
  buffer.bytes_ = bytes;
  buffer.device_ = {.kind = DeviceKind::cpu, .index = device.index};
  buffer.is_pinned_ = true;
  if (bytes > 0) buffer.data_ = runtime::allocate(bytes, runtime::MemoryKind::pinned, device.index);
  return buffer;
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_),
      is_pinned_(other.is_pinned_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  std::swap(is_pinned_, other.is_pinned_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (is_pinned_) {
    runtime::release(data_, runtime::MemoryKind::pinned, device_.index);
  } else if (device_.kind == DeviceKind::cuda) {
    runtime::release(data_, runtime::MemoryKind::device, device_.index);
  } else {
    munmap(data_, static_cast<size_t>(mapped_bytes(bytes_)));
  }
}

}  // namespace ptrain
