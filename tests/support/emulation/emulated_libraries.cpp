// What a GPU's libraries do, done by the CPU's twins inside the emulated stream: matrix products.
#include "kernels/base/stream.h"
#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "tests/support/emulation/fibers.h"

namespace ptrain::cuda {
namespace {

class EmulatedLibraries : public Libraries {
 public:
  void save() const override {}
};

/// The same memory, as the CPU's ops want it.
Tensor on_cpu(Tensor x) {
  x.device = {};
  return x;
}

Context cpu_context() {
  Context context;
  context.threads = 1;
  return context;
}

}  // namespace

std::unique_ptr<Libraries> make_libraries(Device, const LibraryOptions&) {
  return std::make_unique<EmulatedLibraries>();
}

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write) {
  emulation::enqueue(context.stream->native(), [=] {
    Context cpu = cpu_context();
    cpu::linear_forward(cpu, on_cpu(x), on_cpu(w), on_cpu(bias), on_cpu(y), write);
  });
}

void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write) {
  emulation::enqueue(context.stream->native(), [=] {
    Context cpu = cpu_context();
    cpu::linear_backward_input(cpu, on_cpu(dy), on_cpu(w), on_cpu(dx), write);
  });
}

void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write) {
  emulation::enqueue(context.stream->native(), [=] {
    Context cpu = cpu_context();
    cpu::linear_backward_weight(cpu, on_cpu(dy), on_cpu(x), on_cpu(dw), write);
  });
}

}  // namespace ptrain::cuda
