// Whether a rank's communicators and lanes work before they are needed; declared in device_comm.h.
#include <chrono>

#include "kernels/base/buffer.h"
#include "parallel/comm/device_comm.h"

namespace ptrain {

void DeviceComm::try_out(double deadline_s) {
  if (nccl_ == nullptr) return;
  // 1. A number for the sum, then one for each lane: that of the rank that sends it.
  const auto numbers = static_cast<int64_t>(lanes_.size()) + 1;
  const Buffer host = Buffer::staging(numbers * size_bytes(DType::f32), queues_->device());
  const Buffer device(host.bytes(), queues_->device());
  const Tensor shown(host.data(), {numbers}, DType::f32);
  const Tensor tried(device.data(), {numbers}, DType::f32, queues_->device());
  float* values = shown.as<float>();
  values[0] = static_cast<float>(rank() + 1);
  for (size_t i = 0; i < lanes_.size(); ++i)
    values[i + 1] = static_cast<float>(lanes_[i].from == rank() ? rank() : -1);
  // 2. Out and back.
  const Stream& compute = queues_->compute();
  const Event back(queues_->device());
  transfer(shown, tried, compute);
  nccl_->all_reduce(tried.data, tried.data, 1, DType::f32, Reduce::sum, compute.native());
  std::vector<Transfer> transfers;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const Tensor number(tried.at(static_cast<int64_t>(i) + 1), {1}, DType::f32, tried.device);
    transfers.push_back(enqueue_message(number, lanes_[i]));
  }
  for (Transfer& transfer : transfers) transfer.wait();
  transfer(tried, shown, compute);
  compute.record(back);  // behind it the host may read `shown`
  const auto begin = std::chrono::steady_clock::now();
  while (!back.is_done()) {
    queues_->check_members();
    check(std::chrono::steady_clock::now() - begin < std::chrono::duration<double>(deadline_s),
          ExitCode::resources,
          "NCCL is connected, but a first small operation over {} is not back on rank {} after {:.0f} s",
          name_, rank(), deadline_s);
  }
  // 3. Right?
  const auto sum = static_cast<float>(size() * (size() + 1) / 2);
  check(values[0] == sum, ExitCode::resources, "NCCL over {}: a sum over {} ranks is {} and not {}", name_,
        size(), values[0], sum);
  for (size_t i = 0; i < lanes_.size(); ++i)
    check(values[i + 1] == static_cast<float>(lanes_[i].from), ExitCode::resources,
          "NCCL over {}: the first message from rank {} to {} holds {}", name_, lanes_[i].from, lanes_[i].to,
          values[i + 1]);
}

}  // namespace ptrain
