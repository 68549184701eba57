// What the ops refuse: devices that are not built in, and operands that do not fit together.
#include <gtest/gtest.h>

#include "kernels/base/stream.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/rope.h"
#include "tests/kernels/guarded.h"

namespace ptrain {
namespace {

/// The message and the code of what `body` throws.
struct Refusal {
  ExitCode code = ExitCode::done;
  std::string message;
};

template <class Body>
Refusal refusal_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

TEST(Dispatch, SaysThatCudaIsMissingAndWhatToDo) {
  Guarded<float> x(2, 3);
  x.fill(1);
  Context context = cpu_context();
  const Stream stream;
  context.device.kind = DeviceKind::cuda;
  context.stream = &stream;
  const Refusal refusal = refusal_of([&] { fill(context, x.view(), 0); });
  EXPECT_EQ(refusal.code, ExitCode::usage);
  EXPECT_NE(refusal.message.find("device: cpu"), std::string::npos) << refusal.message;
}

TEST(Dispatch, NamesTheOperandThatDoesNotFit) {
  Guarded<float> x(2, 3), w(4, 5), y(2, 4);
  Context context = cpu_context();
  const Refusal refusal = refusal_of([&] { linear_forward(context, x.view(), w.view(), {}, y.view()); });
  EXPECT_EQ(refusal.code, ExitCode::defect);
  EXPECT_EQ(refusal.message, "linear_forward: x is (2, 3), expected (2, 5)");
}

TEST(Dispatch, RefusesMixedDtypesAndTypesThatAreNoOperands) {
  Guarded<float> x(2, 5), y(2, 4);
  Guarded<double> w(4, 5);
  Context context = cpu_context();
  EXPECT_EQ(refusal_of([&] { linear_forward(context, x.view(), w.view(), {}, y.view()); }).message,
            "linear_forward: w is f64, expected f32");
  Tensor eighth = y.view();
  eighth.dtype = DType::f8_e4m3;
  EXPECT_EQ(refusal_of([&] { scale(context, eighth, 2); }).code, ExitCode::defect);
}

TEST(Dispatch, RefusesHeadsThatTheKeysDoNotCover) {
  Guarded<float> q(4, 6), kv(4, 2), lse(1, 12);
  std::vector<int32_t> start(4);
  AttentionDims dims{.B = 1, .T = 4, .H = 3, .K = 1, .D = 2, .group = 3, .first_head = 1};
  Context context = cpu_context();
  const Refusal refusal = refusal_of([&] {
    attention_forward(context, dims, q.view(), kv.view(), kv.view(), ids_of(start), q.view(),
                      lse.view(Shape{1, 3, 4}));
  });
  EXPECT_EQ(refusal.code, ExitCode::defect);
  EXPECT_NE(refusal.message.find("from head 1"), std::string::npos) << refusal.message;
}

TEST(Dispatch, RefusesHeadsThatDoNotTileTheColumns) {
  Guarded<float> x(2, 7), table(4, 2);
  std::vector<int32_t> positions = {0, 1};
  Context context = cpu_context();
  EXPECT_EQ(refusal_of([&] {
              rope(context, x.view(), ids_of(positions), table.view(Shape{4, 1, 2}), 2, Rotation::forward);
            }).message,
            "rope: 7 columns are no heads of size 2");
}

}  // namespace
}  // namespace ptrain
