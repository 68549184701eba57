#include "parallel/comm/shared_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <new>
#include <sstream>
#include <utility>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr size_t ring_bytes = sizeof(OpRing);

}  // namespace

RingMemory::RingMemory(int file, bool is_writable) {
  void* const mapped =
      ::mmap(nullptr, ring_bytes, is_writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) data_ = mapped;
}
RingMemory::RingMemory(RingMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
RingMemory& RingMemory::operator=(RingMemory&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}
RingMemory::~RingMemory() {
  if (data_ != nullptr) ::munmap(data_, ring_bytes);
}

SharedRing::SharedRing() {
  // The name tells this ring from whatever has its number later.
  const auto when = std::chrono::steady_clock::now().time_since_epoch().count();
  const std::string name = fmt::format("ptrain-ring-{}-{}", ::getpid(), when);
  file_ = ::memfd_create(name.c_str(), MFD_CLOEXEC);
  if (file_ >= 0 && ::ftruncate(file_, static_cast<off_t>(ring_bytes)) == 0)
    memory_ = RingMemory(file_, true);
  if (memory_.data() == nullptr) {
    ring_ = new OpRing;
    return;
  }
  ring_ = new (memory_.data()) OpRing;
  address_ = fmt::format("{} {} {}", ::getpid(), file_, name);
}

SharedRing::~SharedRing() {
  if (memory_.data() == nullptr) delete ring_;
  if (file_ >= 0) ::close(file_);
}

RingMemory open_ring(const std::string& address) {
  std::istringstream words(address);
  std::string process, file, name;
  words >> process >> file >> name;
  const std::string path = fmt::format("/proc/{}/fd/{}", process, file);
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  if (error || target != "/memfd:" + name + " (deleted)") return {};
  const int opened = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (opened < 0) return {};
  RingMemory memory(opened, false);
  ::close(opened);
  return memory;
}

}  // namespace ptrain
