#include "tests/support/twins.h"

#include <cmath>
#include <cstring>

#include "kernels/base/rng.h"
#include "kernels/ops/elementwise.h"
#ifdef PTRAIN_EMULATED
#include "tests/support/emulation/fibers.h"
#endif

namespace ptrain {
namespace {

constexpr int64_t margin = 128;  // bytes on either side: keeps the alignment of the tensor
constexpr unsigned char sentinel = 0xa5;

double rounding_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-53;
    case DType::bf16:
      return 0x1p-8;
    case DType::f16:
      return 0x1p-11;
    default:
      return 0x1p-24;
  }
}

}  // namespace

void shuffle_order([[maybe_unused]] uint64_t seed) {
#ifdef PTRAIN_EMULATED
  emulation::seed_order(seed);
#endif
}

Closeness roundings(DType dtype, double magnitude, double count) {
  return {.relative = count * rounding_of(dtype), .absolute = count * rounding_of(dtype) * magnitude};
}

Closeness rounded_once(DType dtype, double magnitude, double count) {
  const double arithmetic = count * rounding_of(DType::f32);
  return {.relative = 2 * rounding_of(dtype) + arithmetic, .absolute = arithmetic * magnitude};
}

TestDevice::TestDevice(int64_t scratch_bytes, const LibraryOptions& options)
    : stream_(Device{DeviceKind::cuda, 0}),
      libraries_(make_libraries({DeviceKind::cuda, 0}, options)),
      scratch_(scratch_bytes, {DeviceKind::cuda, 0}),
      cpu_scratch_(scratch_bytes) {
  cpu_.threads = 1;  // threads that wait for each other would steal the other tests' cores
  cpu_.scratch = Tensor(cpu_scratch_.data(), {scratch_bytes}, DType::u8);
  gpu_.device = {DeviceKind::cuda, 0};
  gpu_.scratch = Tensor(scratch_.data(), {scratch_bytes}, DType::u8, gpu_.device);
  gpu_.stream = &stream_;
  gpu_.libraries = libraries_.get();
}

TwinTensor::TwinTensor(TestDevice& device, Shape shape, DType dtype, int64_t gap)
    : owner_(device), shape_(shape), dtype_(dtype), stride_(shape.columns() + gap) {
  const int64_t bytes = shape.rows() * stride_ * size_bytes(dtype) + 2 * margin;
  host_ = Buffer(bytes);
  back_ = Buffer::staging(bytes, device.device());
  device_ = Buffer(bytes, device.device());
  std::memset(host_.data(), sentinel, static_cast<size_t>(bytes));
  upload();
}

Tensor TwinTensor::view(void* data, Device where) const {
  Tensor tensor(static_cast<char*>(data) + margin, shape_, dtype_, where);
  if (stride_ != shape_.columns()) tensor.row_stride = stride_;
  return tensor;
}

void TwinTensor::upload() {
  const int64_t bytes = host_.bytes();
  std::memcpy(back_.data(), host_.data(), static_cast<size_t>(bytes));
  transfer(Tensor(back_.data(), {bytes}, DType::u8),
           Tensor(device_.data(), {bytes}, DType::u8, device_.device()), owner_.stream());
  owner_.stream().synchronize();
}

void TwinTensor::download() {
  const int64_t bytes = host_.bytes();
  transfer(Tensor(device_.data(), {bytes}, DType::u8, device_.device()),
           Tensor(back_.data(), {bytes}, DType::u8), owner_.stream());
  owner_.stream().synchronize();
}

TwinTensor& TwinTensor::set(const std::vector<double>& values) {
  check(static_cast<int64_t>(values.size()) == shape_.numel(), "{} values for {}", values.size(),
        to_string(shape_));
  OwnedTensor from({shape_.rows(), shape_.columns()}, DType::f64);
  std::copy(values.begin(), values.end(), from.view.as<double>());
  Tensor to = cpu();
  to.shape = from.view.shape;
  copy(owner_.cpu(), from.view, to);
  upload();
  return *this;
}

TwinTensor& TwinTensor::set(const std::vector<int32_t>& values) {
  std::copy(values.begin(), values.end(), cpu().span<int32_t>().begin());
  upload();
  return *this;
}

TwinTensor& TwinTensor::random(uint64_t seed, double size) {
  const Rng rng(seed, 0);
  std::vector<double> values(static_cast<size_t>(shape_.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = size * rng.normal(i);
  return set(values);
}

TwinTensor& TwinTensor::fill(double value) {
  return set(std::vector<double>(static_cast<size_t>(shape_.numel()), value));
}

std::vector<double> TwinTensor::values_of(const void* bytes) const {
  Tensor from = view(const_cast<void*>(bytes), {});
  if (dtype_ == DType::i32 || dtype_ == DType::i16) {
    std::vector<double> values;
    for (int64_t i = 0; i < shape_.numel(); ++i)
      values.push_back(dtype_ == DType::i32 ? from.as<int32_t>()[i] : from.as<int16_t>()[i]);
    return values;
  }
  OwnedTensor to({shape_.rows(), shape_.columns()}, DType::f64);
  from.shape = to.view.shape;
  copy(owner_.cpu(), from, to.view);
  const auto span = to.view.span<double>();
  return {span.begin(), span.end()};
}

std::vector<double> TwinTensor::values() {
  download();
  return values_of(back_.data());
}

testing::AssertionResult TwinTensor::sentinels(const void* bytes, const char* side) const {
  const auto* all = static_cast<const unsigned char*>(bytes);
  const int64_t unit = size_bytes(dtype_), row = stride_ * unit, used = shape_.columns() * unit;
  for (int64_t i = 0; i < host_.bytes(); ++i) {
    const int64_t inner = i - margin;
    const bool is_inside = inner >= 0 && inner < shape_.rows() * row && inner % row < used;
    if (!is_inside && all[i] != sentinel)
      return testing::AssertionFailure()
             << side << " wrote outside, at byte " << inner << " of " << shape_.rows() * row;
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult TwinTensor::agrees(Closeness closeness) {
  download();
  if (auto result = sentinels(host_.data(), "the CPU"); !result) return result;
  if (auto result = sentinels(back_.data(), "the device"); !result) return result;
  const std::vector<double> expected = values_of(host_.data()), actual = values_of(back_.data());
  for (size_t i = 0; i < expected.size(); ++i) {
    const double e = expected[i], a = actual[i];
    if (e == a || (std::isnan(e) && std::isnan(a))) continue;
    if (std::fabs(e - a) <= closeness.relative * std::fabs(e) + closeness.absolute) continue;
    return testing::AssertionFailure() << "element " << i << " of " << expected.size() << " is " << a
                                       << " on the device, " << e << " on the CPU";
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult TwinTensor::same_bits() {
  download();
  if (auto result = sentinels(back_.data(), "the device"); !result) return result;
  const auto* a = static_cast<const unsigned char*>(host_.data());
  const auto* b = static_cast<const unsigned char*>(back_.data());
  for (int64_t i = 0; i < host_.bytes(); ++i)
    if (a[i] != b[i]) return testing::AssertionFailure() << "byte " << i - margin << " differs";
  return testing::AssertionSuccess();
}

}  // namespace ptrain
