// Makes small GGUF files for tests: good ones of every type, and bad ones by writing bytes as told.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

class GgufWriter {
 public:
  // Numbers of the file's value types.
  static constexpr uint32_t u8 = 0, u32 = 4, i32 = 5, f32 = 6, boolean = 7, text = 8, array = 9, u64 = 10,
                            f64 = 12;

  void set(std::string_view key, std::string_view value) {
    begin(key, text);
    put_text(keys_, value);
  }
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, uint32_t value) {
    begin(key, u32);
    put(keys_, value);
  }
  void set(std::string_view key, int value) { set(key, static_cast<uint32_t>(value)); }
  void set(std::string_view key, float value) {
    begin(key, f32);
    put(keys_, value);
  }
  void set(std::string_view key, bool value) {
    begin(key, boolean);
    put(keys_, static_cast<uint8_t>(value));
  }
  void set(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, text, values.size());
    for (const std::string& value : values) put_text(keys_, value);
  }
  void set(std::string_view key, const std::vector<int32_t>& values) {
    begin_array(key, i32, values.size());
    for (const int32_t value : values) put(keys_, value);
  }
  void set(std::string_view key, const std::vector<float>& values) {
    begin_array(key, f32, values.size());
    for (const float value : values) put(keys_, value);
  }
  /// A key with any type number and any bytes behind it.
  void set_raw(std::string_view key, uint32_t type, std::string_view bytes) {
    begin(key, type);
    keys_ += bytes;
  }

  /// extents: innermost first, as in the file. The offset is where the writer's data stands, plus `shift`.
  void add(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type, std::string_view bytes,
           int64_t shift = 0) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    put_text(infos_, name);
    put(infos_, static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) put(infos_, extent);
    put(infos_, type);
    put(infos_, static_cast<uint64_t>(static_cast<int64_t>(data_.size()) + shift));
    data_ += bytes;
    ++num_tensors;
  }
  void add(std::string_view name, const std::vector<uint64_t>& extents, const std::vector<float>& values) {
    add(name, extents, 0, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }

  std::string bytes() const {
    std::string all = magic;
    put(all, version);
    put(all, num_tensors);
    put(all, num_keys);
    all += keys_ + infos_;
    all.resize((all.size() + alignment - 1) / alignment * alignment, '\0');
    return all + data_;
  }
  void write(const std::filesystem::path& path) const { std::ofstream(path, std::ios::binary) << bytes(); }

  template <class T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_text(std::string& out, std::string_view value) {
    put(out, static_cast<uint64_t>(value.size()));
    out += value;
  }

  // May be changed to lie.
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
  size_t alignment = 32;

 private:
  void begin(std::string_view key, uint32_t type) {
    put_text(keys_, key);
    put(keys_, type);
    ++num_keys;
  }
  void begin_array(std::string_view key, uint32_t type, size_t count) {
    begin(key, array);
    put(keys_, type);
    put(keys_, static_cast<uint64_t>(count));
  }

  std::string keys_, infos_, data_;
};

}  // namespace ptrain
