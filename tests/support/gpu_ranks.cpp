// Threads of a test as ranks on real GPUs: each on its own over NCCL, all on the first one where they are
// staged.
#include "tests/support/device_ranks.h"

namespace ptrain {

MakeNccl nccl_for_ranks(Through) {
  return make_nccl;
}

std::string why_not(Through through, int ranks) {
  const int devices = runtime::device_count();
  if (devices == 0) return "there is no GPU";
  if (through == Through::host) return {};
  if (through == Through::eager_nccl) return "NCCL decides itself when a send is done";
  if (make_nccl() == nullptr) return "this build has no NCCL";
  return ranks <= devices ? "" : fmt::format("{} ranks, but {} GPUs", ranks, devices);
}

Device device_of(int rank, Through through) {
  const Device device{.kind = DeviceKind::cuda, .index = through == Through::host ? 0 : rank};
  runtime::use_device(device.index);
  return device;
}

void seed_streams(uint64_t) {}

}  // namespace ptrain
