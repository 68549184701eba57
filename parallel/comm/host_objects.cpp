#include "parallel/comm/host_objects.h"

#include <numeric>

namespace ptrain {
namespace {

// Sends only read it.
Tensor bytes_of(std::string_view text) {
  return Tensor(const_cast<char*>(text.data()), {std::ssize(text)}, DType::u8);
}

std::vector<int64_t> all_lengths(Communicator& comm, std::string_view mine) {
  std::vector<int64_t> lengths(static_cast<size_t>(comm.size()));
  int64_t length = std::ssize(mine);
  comm.all_gather(Tensor(&length, {1}, DType::i64),
                  Tensor(lengths.data(), {std::ssize(lengths)}, DType::i64));
  return lengths;
}

std::vector<std::string> cut(const std::string& whole, const std::vector<int64_t>& lengths) {
  std::vector<std::string> texts;
  size_t begin = 0;
  for (const int64_t length : lengths) {
    texts.push_back(whole.substr(begin, static_cast<size_t>(length)));
    begin += static_cast<size_t>(length);
  }
  return texts;
}

std::string room_for(const std::vector<int64_t>& lengths) {
  return std::string(static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})), '\0');
}

}  // namespace

std::vector<std::string> all_gather_text(Communicator& comm, std::string_view mine) {
  const std::vector<int64_t> lengths = all_lengths(comm, mine);
  const std::string whole = room_for(lengths);
  comm.all_gather_varied(bytes_of(mine), bytes_of(whole), lengths);
  return cut(whole, lengths);
}

std::vector<std::string> gather_text(Communicator& comm, std::string_view mine, int root) {
  const std::vector<int64_t> lengths = all_lengths(comm, mine);
  const bool is_root = comm.rank() == root;
  const std::vector<int64_t> nothing(lengths.size(), 0);
  std::vector<int64_t> sent = nothing;
  sent[static_cast<size_t>(root)] = std::ssize(mine);
  const std::vector<int64_t>& received = is_root ? lengths : nothing;
  const std::string whole = room_for(received);
  comm.all_to_all_varied(bytes_of(mine), sent, bytes_of(whole), received);
  return is_root ? cut(whole, lengths) : std::vector<std::string>{};
}

std::string broadcast_text(Communicator& comm, std::string_view text, int root) {
  int64_t length = std::ssize(text);
  comm.broadcast(Tensor(&length, {1}, DType::i64), root);
  std::string received = comm.rank() == root ? std::string(text) : room_for({length});
  comm.broadcast(bytes_of(received), root);
  return received;
}

}  // namespace ptrain
