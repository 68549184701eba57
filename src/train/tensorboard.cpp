#include "src/train/tensorboard.h"

#include <unistd.h>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "kernels/base/host_name.h"

namespace ptrain {
namespace {

// Protocol-buffer wire types.
constexpr int varint_type = 0, fixed64_type = 1, bytes_type = 2, fixed32_type = 5;

template <class T>
void put_raw(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, int field, int type) {
  put_varint(out, static_cast<uint64_t>(field << 3 | type));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, bytes_type);
  put_varint(out, bytes.size());
  out += bytes;
}

/// The CRC as the format stores it: rotated and shifted, so that a CRC of data with CRCs in it stays useful.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes.data(), bytes.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string record_of(std::string_view event) {
  std::string record;
  put_raw(record, static_cast<uint64_t>(event.size()));
  put_raw(record, masked_crc(record));
  record += event;
  put_raw(record, masked_crc(event));
  return record;
}

/// Event: 1 wall_time (double), 2 step (int64), 3 file_version, 5 summary.
std::string event_head(double time, int64_t step) {
  std::string event;
  put_key(event, 1, fixed64_type);
  put_raw(event, time);
  put_key(event, 2, varint_type);
  put_varint(event, static_cast<uint64_t>(step));
  return event;
}

}  // namespace

std::string version_record(double time) {
  std::string event = event_head(time, 0);
  put_bytes(event, 3, "brain.Event:2");
  return record_of(event);
}

std::string scalar_record(double time, int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {  // Summary.Value: 1 tag, 2 simple_value (float)
    std::string value;
    put_bytes(value, 1, scalar.tag);
    put_key(value, 2, fixed32_type);
    put_raw(value, static_cast<float>(scalar.value));
    put_bytes(summary, 1, value);
  }
  std::string event = event_head(time, step);
  put_bytes(event, 5, summary);
  return record_of(event);
}

TensorBoard::TensorBoard(const std::filesystem::path& directory, double time) {
  const std::string name =
      fmt::format("events.out.tfevents.{:010}.{}.{}", static_cast<int64_t>(time), host_name(), ::getpid());
  file_ = AppendedFile(directory / name, AppendedFile::Start::go_on);
  file_.append(version_record(time));
}

void TensorBoard::write(double time, int64_t step, const std::vector<Scalar>& scalars) {
  if (file_.is_open()) file_.append(scalar_record(time, step, scalars));
}

}  // namespace ptrain
