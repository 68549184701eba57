// The host's side of tensors that live on a device or in 16 bits: where files are read into and written from.
// For set-up, saving and results; not for a step, since the host waits here.
#pragma once

#include "kernels/base/buffer.h"
#include "kernels/ops/context.h"

namespace ptrain {

/// A CPU's context with the threads of a rank whose ops may run elsewhere.
Context host_context(const Context& context);

/// transfer() in the order of the context's ops; done at once where that is a CPU's.
void transfer(const Context& context, Tensor from, Tensor to);

/// Copies between a tensor of any device and float dtype and one of the host, both contiguous; the values are
/// converted. Done when it returns.
void to_host(const Context& context, Tensor from, Tensor host);
void from_host(const Context& context, Tensor host, Tensor to);

/// A flat tensor as the host sees it, in `dtype`. It is the tensor itself where that lies on the host with
/// that dtype; else memory of its own, which get() fills and put() brings to the tensor.
class HostFlat {
 public:
  HostFlat() = default;
  HostFlat(const Context& context, Tensor flat, DType dtype);

  Tensor view() const { return view_; }
  bool is_itself() const { return view_.data == flat_.data; }
  void get();
  void put();

 private:
  Context context_;
  Tensor flat_, view_;
  Buffer own_;
};

}  // namespace ptrain
