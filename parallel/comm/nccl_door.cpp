// The one file that includes nccl.h. Communicators are non-blocking: a call that waits for other ranks is
// polled until a deadline, so that a rank that never comes is an error with a text and not a hang.
#include "parallel/comm/nccl_door.h"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

namespace ptrain {
namespace {

using Clock = std::chrono::steady_clock;

static_assert(sizeof(ncclUniqueId) == sizeof(NcclId));

ncclDataType_t type_of_sums(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    case DType::i8:
      return ncclInt8;
    case DType::u8:
      return ncclUint8;
    default:
      fail(ExitCode::defect, "no reduction over ranks for {}", name_of(dtype));
  }
}

ncclRedOp_t operation_of(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return ncclSum;
    case Reduce::max:
      return ncclMax;
    case Reduce::min:
      return ncclMin;
  }
  fail(ExitCode::defect, "no reduction {}", static_cast<int>(reduce));
}

// What only moves is bytes to NCCL: so it takes every dtype.
size_t bytes_of(int64_t count, DType dtype) {
  return static_cast<size_t>(count * size_bytes(dtype));
}

cudaStream_t stream_of(runtime::NativeStream stream) {
  return static_cast<cudaStream_t>(stream);
}

ncclConfig_t native(const NcclConfig& config) {
  ncclConfig_t made = NCCL_CONFIG_INITIALIZER;
  made.blocking = 0;
  // Communicators of a rank run beside each other, which those that share resources must not.
  made.splitShare = 0;
  if (config.min_ctas) made.minCTAs = *config.min_ctas;
  if (config.max_ctas) made.maxCTAs = *config.max_ctas;
  if (config.cga_cluster_size) made.cgaClusterSize = *config.cga_cluster_size;
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
  if (config.traffic_class) made.trafficClass = *config.traffic_class;
#endif
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
  if (config.has_zero_ctas) made.CTAPolicy = NCCL_CTA_POLICY_ZERO;
#endif
  return made;
}

/// Whom a message is about.
struct Who {
  int rank = 0;
  int ranks = 1;
  int hosts = 1;
};

[[noreturn]] void refuse(ncclResult_t result, const char* what, const Who& who, ncclComm_t comm) {
  const char* told = ncclGetLastError(comm);
  fail(ExitCode::resources,
       "NCCL: {} failed on rank {} of {} ranks on {} hosts: {}. It said last: {}. NCCL_DEBUG=INFO shows more",
       what, who.rank, who.ranks, who.hosts, ncclGetErrorString(result),
       told != nullptr && *told != '\0' ? told : "nothing");
}

/// Polls what a call on `comm` left under way.
void settle(ncclComm_t comm, const char* what, const Who& who, double deadline_s) {
  const Clock::time_point begin = Clock::now();
  std::chrono::microseconds nap{1};  // most calls are done at once; a set-up takes seconds
  for (;;) {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
    if (asked != ncclSuccess) refuse(asked, what, who, comm);
    if (state == ncclSuccess) return;
    if (state != ncclInProgress) refuse(state, what, who, comm);
    const double waited_s = std::chrono::duration<double>(Clock::now() - begin).count();
    if (waited_s > deadline_s) {
      const char* told = ncclGetLastError(comm);
      fail(ExitCode::resources,
           "NCCL: {} on rank {} of {} ranks on {} hosts is not done after {:.0f} s: another rank never came, "
           "or the hosts cannot reach each other (NCCL_SOCKET_IFNAME names the interface). It said last: {}",
           what, who.rank, who.ranks, who.hosts, waited_s,
           told != nullptr && *told != '\0' ? told : "nothing");
    }
    std::this_thread::sleep_for(nap);
    nap = std::min(2 * nap, std::chrono::microseconds(1000));
  }
}

class LibraryComm final : public NcclComm {
 public:
  LibraryComm(ncclComm_t comm, const Who& who, double deadline_s)
      : comm_(comm), who_(who), deadline_s_(deadline_s) {}
  ~LibraryComm() override {
    if (comm_ == nullptr) return;
    // After an error other ranks may never finish what is under way: nothing may wait for them.
    if (std::uncaught_exceptions() > 0 || has_failed_) {
      abort();
      return;
    }
    for (void* handle : handles_) ncclCommDeregister(comm_, handle);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
    for (ncclWindow_t window : windows_) ncclCommWindowDeregister(comm_, window);
#endif
    ncclCommDestroy(comm_);
  }

  int rank() const override {
    return who_.rank;
  }
  int size() const override {
    return who_.ranks;
  }

  void all_reduce(const void* from, void* to, int64_t count, DType dtype, Reduce reduce,
                  runtime::NativeStream stream) override {
    expect(ncclAllReduce(from, to, static_cast<size_t>(count), type_of_sums(dtype), operation_of(reduce),
                         open(), stream_of(stream)),
           "all_reduce");
  }
  void all_gather(const void* part, void* whole, int64_t count, DType dtype,
                  runtime::NativeStream stream) override {
    expect(ncclAllGather(part, whole, bytes_of(count, dtype), ncclInt8, open(), stream_of(stream)),
           "all_gather");
  }
  void reduce_scatter(const void* whole, void* part, int64_t count, DType dtype,
                      runtime::NativeStream stream) override {
    expect(ncclReduceScatter(whole, part, static_cast<size_t>(count), type_of_sums(dtype), ncclSum, open(),
                             stream_of(stream)),
           "reduce_scatter");
  }
  void broadcast(void* data, int64_t count, DType dtype, int root, runtime::NativeStream stream) override {
    expect(ncclBroadcast(data, data, bytes_of(count, dtype), ncclInt8, root, open(), stream_of(stream)),
           "broadcast");
  }
  void send(const void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) override {
    expect(ncclSend(data, bytes_of(count, dtype), ncclInt8, peer, open(), stream_of(stream)), "send");
  }
  void receive(void* data, int64_t count, DType dtype, int peer, runtime::NativeStream stream) override {
    expect(ncclRecv(data, bytes_of(count, dtype), ncclInt8, peer, open(), stream_of(stream)), "receive");
  }

  void group_begin() override {
    const ncclResult_t result = ncclGroupStart();
    if (result != ncclSuccess) refuse(result, "beginning a group", who_, comm_);
    is_grouping_ = true;
  }
  void group_end() override {
    is_grouping_ = false;
    expect(ncclGroupEnd(), "a group");
  }

  std::unique_ptr<NcclComm> split(int color, int key, const NcclConfig& config) override {
    ncclConfig_t made = native(config);
    ncclComm_t group = nullptr;
    const int native_color = color < 0 ? NCCL_SPLIT_NOCOLOR : color;
    expect(ncclCommSplit(open(), native_color, key, &group, &made), "split");
    if (color < 0) return nullptr;
    settle(group, "making a communicator of a part of the ranks", who_, config.deadline_s);
    Who who{.hosts = config.hosts};
    expect(ncclCommUserRank(group, &who.rank), "split");
    expect(ncclCommCount(group, &who.ranks), "split");
    return std::make_unique<LibraryComm>(group, who, config.deadline_s);
  }

  bool register_buffer(void* data, int64_t bytes, Registration registration) override {
    const auto size = static_cast<size_t>(bytes);
    if (registration == Registration::local) {
      void* handle = nullptr;
      if (!is_accepted(ncclCommRegister(open(), data, size, &handle)) || handle == nullptr) return false;
      handles_.push_back(handle);
      return true;
    }
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
    ncclWindow_t window = nullptr;
    if (!is_accepted(ncclCommWindowRegister(open(), data, size, &window, NCCL_WIN_COLL_SYMMETRIC)))
      return false;
    if (window == nullptr) return false;
    windows_.push_back(window);
    return true;
#else
    return false;
#endif
  }

  std::string async_error() override {
    if (comm_ == nullptr) return "it was aborted";
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state == ncclSuccess || state == ncclInProgress) return {};
    has_failed_ = true;
    const char* told = ncclGetLastError(comm_);
    return fmt::format("rank {} of {} ranks on {} hosts: {}: {}", who_.rank, who_.ranks, who_.hosts,
                       ncclGetErrorString(state), told != nullptr ? told : "");
  }

  void abort() noexcept override {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }

 private:
  ncclComm_t open() const {
    check(comm_ != nullptr, "a communicator of NCCL is used after it was aborted");
    return comm_;
  }
  void expect(ncclResult_t result, const char* what) {
    // Inside a group the call is only noted down: it is under way after the group's end.
    if (result == ncclSuccess || (result == ncclInProgress && is_grouping_)) return;
    has_failed_ = true;  // unless what follows says that all is well
    if (result != ncclInProgress) refuse(result, what, who_, comm_);
    settle(comm_, what, who_, deadline_s_);
    has_failed_ = false;
  }
  /// Of a registration, which the library may decline without harm.
  bool is_accepted(ncclResult_t result) {
    if (result == ncclInvalidArgument || result == ncclInvalidUsage) return false;
    expect(result, "registering memory");
    return true;
  }

  ncclComm_t comm_;
  Who who_;
  double deadline_s_;
  bool is_grouping_ = false;
  bool has_failed_ = false;
  std::vector<void*> handles_;
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
  std::vector<ncclWindow_t> windows_;
#endif
};

class LibraryNccl final : public Nccl {
 public:
  int version() const override {
    int version = 0;
    const ncclResult_t result = ncclGetVersion(&version);
    if (result != ncclSuccess) refuse(result, "asking for the version", {}, nullptr);
    return version;
  }
  NcclId unique_id() override {
    ncclUniqueId made;
    const ncclResult_t result = ncclGetUniqueId(&made);
    if (result != ncclSuccess) refuse(result, "making an address for the other ranks", {}, nullptr);
    NcclId id;
    std::memcpy(id.bytes.data(), made.internal, id.bytes.size());
    return id;
  }
  std::unique_ptr<NcclComm> connect(const NcclId& id, int rank, int ranks,
                                    const NcclConfig& config) override {
    ncclUniqueId address;
    std::memcpy(address.internal, id.bytes.data(), id.bytes.size());
    ncclConfig_t made = native(config);
    const Who who{.rank = rank, .ranks = ranks, .hosts = config.hosts};
    ncclComm_t comm = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&comm, ranks, address, rank, &made);
    if (result != ncclSuccess && result != ncclInProgress) refuse(result, "the start", who, comm);
    // Owned from here on: an error below must abort what is under way.
    auto owner = std::make_unique<LibraryComm>(comm, who, config.deadline_s);
    settle(comm, "the start", who, config.deadline_s);
    return owner;
  }
};

}  // namespace

std::unique_ptr<Nccl> make_nccl() {
  return std::make_unique<LibraryNccl>();
}

}  // namespace ptrain
