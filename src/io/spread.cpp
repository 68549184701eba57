#include "src/io/spread.h"

#include <algorithm>
#include <vector>

#include "parallel/comm/agree.h"
#include "src/io/extents.h"

namespace ptrain {

std::optional<Error> spread_file(Communicator& comm, int root, const std::filesystem::path& path) {
  FirstError first;
  const bool is_root = comm.rank() == root;
  File file;
  int64_t bytes = 0;
  if (is_root) {
    first.tried([&] {
      file = File::open(path);
      bytes = file.bytes();
    });
  }
  comm.broadcast(Tensor(&bytes, Shape{1}, DType::i64), root);
  if (!is_root) first.tried([&] { file = File::create(path, bytes); });
  std::vector<char> chunk;
  for (int64_t at = 0; at < bytes; at += chunk_bytes) {
    const int64_t count = std::min(chunk_bytes, bytes - at);
    chunk.resize(static_cast<size_t>(count));
    if (is_root) first.tried([&] { file.read_at(at, chunk.data(), count); });
    comm.broadcast(Tensor(chunk.data(), Shape{count}, DType::u8), root);
    if (!is_root) first.tried([&] { file.write_at(at, chunk.data(), count); });
  }
  if (!is_root) {
    first.tried([&] {
      file.sync();
      file.close();
    });
  }
  return first.error();
}

}  // namespace ptrain
