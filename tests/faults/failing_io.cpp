// Preloaded into a run: calls on chosen files fail, as a full or a broken disk makes them.
//
//   FAILING_IO="pwrite:ENOSPC:.tmp-step-00000004:2:3;fsync:EIO:.tmp-step-00000008"
//
// CALL:REASON:PART_OF_PATH[:RANK[:FROM]]: from the FROM-th such call on (1), in that rank or in all (-1). The
// reason "half": a write takes only half of what it is given, which is no error.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

namespace {

struct Fault {
  std::string call, reason, path;
  int rank = -1;
  long from = 1;
  std::atomic<long> seen = 0;
};

std::string cut(std::string& text, char at) {
  const size_t end = text.find(at);
  const std::string head = text.substr(0, end);
  text = end == std::string::npos ? "" : text.substr(end + 1);
  return head;
}

std::deque<Fault>& faults() {
  static auto* const all = [] {
    auto* const list = new std::deque<Fault>;
    const char* text = std::getenv("FAILING_IO");
    std::string rest = text != nullptr ? text : "";
    while (!rest.empty()) {
      std::string one = cut(rest, ';');
      Fault& fault = list->emplace_back();
      fault.call = cut(one, ':');
      fault.reason = cut(one, ':');
      fault.path = cut(one, ':');
      if (!one.empty()) fault.rank = std::atoi(cut(one, ':').c_str());
      if (!one.empty()) fault.from = std::atol(one.c_str());
    }
    return list;
  }();
  return *all;
}

int own_rank() {
  const char* text = std::getenv("OMPI_COMM_WORLD_RANK");
  return text != nullptr ? std::atoi(text) : 0;
}

/// Why this call has to fail; null where it has not.
const char* reason_for(const char* call, const char* path) {
  for (Fault& fault : faults()) {
    if (fault.call != call || std::strstr(path, fault.path.c_str()) == nullptr) continue;
    if (fault.rank >= 0 && fault.rank != own_rank()) continue;
    if (fault.seen.fetch_add(1) + 1 >= fault.from) return fault.reason.c_str();
  }
  return nullptr;
}

const char* reason_for(const char* call, int fd) {
  if (faults().empty()) return nullptr;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  char path[4096] = {};
  const ssize_t bytes = ::readlink(link.c_str(), path, sizeof path - 1);
  return bytes > 0 ? reason_for(call, path) : nullptr;
}

int number_of(const char* reason) {
  if (std::strcmp(reason, "ENOSPC") == 0) return ENOSPC;
  if (std::strcmp(reason, "EDQUOT") == 0) return EDQUOT;
  return EIO;
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

ssize_t write_at(int fd, const void* data, size_t bytes, off_t offset) {
  static auto* const next = real<ssize_t(int, const void*, size_t, off_t)>("pwrite64");
  if (const char* reason = reason_for("pwrite", fd)) {
    if (std::strcmp(reason, "half") == 0) return next(fd, data, (bytes + 1) / 2, offset);
    errno = number_of(reason);
    return -1;
  }
  return next(fd, data, bytes, offset);
}

int allocate(int fd, int mode, off_t offset, off_t bytes) {
  static auto* const next = real<int(int, int, off_t, off_t)>("fallocate64");
  if (const char* reason = reason_for("fallocate", fd)) {
    errno = number_of(reason);
    return -1;
  }
  return next(fd, mode, offset, bytes);
}

/// A call that has a descriptor or a path first and returns 0 or -1.
template <class First, class... Rest>
int plain(const char* name, First first, Rest... rest) {
  auto* const next = real<int(First, Rest...)>(name);
  if (const char* reason = reason_for(name, first)) {
    errno = number_of(reason);
    return -1;
  }
  return next(first, rest...);
}

}  // namespace

extern "C" {
// What has a form of 64 bits has two names; the headers give pwrite and fallocate that of the wide one here.
ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  return write_at(fd, data, bytes, offset);
}
ssize_t narrow_pwrite(int fd, const void* data, size_t bytes, off_t offset) __asm__("pwrite");
ssize_t narrow_pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  return write_at(fd, data, bytes, offset);
}
int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return allocate(fd, mode, offset, bytes);
}
int narrow_fallocate(int fd, int mode, off_t offset, off_t bytes) __asm__("fallocate");
int narrow_fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return allocate(fd, mode, offset, bytes);
}
ssize_t write(int fd, const void* data, size_t bytes) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  if (const char* reason = reason_for("write", fd)) {
    if (std::strcmp(reason, "half") == 0) return next(fd, data, (bytes + 1) / 2);
    errno = number_of(reason);
    return -1;
  }
  return next(fd, data, bytes);
}
int fsync(int fd) {
  return plain("fsync", fd);
}
int rename(const char* from, const char* to) noexcept {
  return plain("rename", from, to);
}
}
