#include "src/io/spread.h"

#include <algorithm>
#include <vector>

#include "src/io/extents.h"

namespace ptrain {

std::optional<Error> spread_file(Communicator& comm, int root, const std::filesystem::path& path) {
  std::optional<Error> fault;
  const auto tried = [&](const auto& work) {
    if (fault) return;
    try {
      work();
    } catch (const Error& error) {
      fault = error;
    }
  };
  const bool is_root = comm.rank() == root;
  File file;
  int64_t bytes = 0;
  if (is_root) {
    tried([&] {
      file = File::open(path);
      bytes = file.bytes();
    });
  }
  comm.broadcast(Tensor(&bytes, Shape{1}, DType::i64), root);
  if (!is_root) tried([&] { file = File::create(path, bytes); });
  std::vector<char> chunk;
  for (int64_t at = 0; at < bytes; at += chunk_bytes) {
    const int64_t count = std::min(chunk_bytes, bytes - at);
    chunk.resize(static_cast<size_t>(count));
    if (is_root) tried([&] { file.read_at(at, chunk.data(), count); });
    comm.broadcast(Tensor(chunk.data(), Shape{count}, DType::u8), root);
    if (!is_root) tried([&] { file.write_at(at, chunk.data(), count); });
  }
  if (!is_root) {
    tried([&] {
      file.sync();
      file.close();
    });
  }
  return fault;
}

}  // namespace ptrain
