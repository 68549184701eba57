#include "src/io/part_writers.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/comm/host_objects.h"
#include "src/io/parts.h"

namespace ptrain {
namespace {

/// A slice on its way, in numbers: tensor (by name, ascending), box, range.
constexpr size_t words_per_slice = 2 + 2 * Shape::max_dims + 2;

void add_words(int64_t tensor, const Slice& slice, std::vector<int64_t>& words) {
  words.push_back(tensor);
  words.push_back(slice.box.extent.dims());
  for (int dim = 0; dim < Shape::max_dims; ++dim) {
    const bool is_used = dim < slice.box.extent.dims();
    words.push_back(is_used ? slice.box.begin[static_cast<size_t>(dim)] : 0);
    words.push_back(is_used ? slice.box.extent[dim] : 0);
  }
  words.push_back(slice.range.begin);
  words.push_back(slice.range.count);
}

Slice slice_from(const int64_t* words) {
  Slice slice;
  for (int dim = 0; dim < words[1]; ++dim) {
    slice.box.begin[static_cast<size_t>(dim)] = words[2 + 2 * dim];
    slice.box.extent.push_back(words[3 + 2 * dim]);
  }
  slice.range = {words[words_per_slice - 2], words[words_per_slice - 1]};
  return slice;
}

/// What each rank has for each other, in words; returns what the others have for this one.
std::vector<std::vector<int64_t>> exchanged(Communicator& world,
                                            const std::vector<std::vector<int64_t>>& words_for) {
  const auto size = static_cast<size_t>(world.size());
  const std::vector<int64_t> ones(size, 1);
  std::vector<int64_t> send_counts, send, receive_counts(size);
  for (const std::vector<int64_t>& words : words_for) {
    send_counts.push_back(std::ssize(words));
    send.insert(send.end(), words.begin(), words.end());
  }
  const auto view = [](std::vector<int64_t>& values) {
    return Tensor(values.data(), Shape{std::ssize(values)}, DType::i64);
  };
  world.all_to_all_varied(view(send_counts), ones, view(receive_counts), ones);
  int64_t total = 0;
  for (const int64_t count : receive_counts) total += count;
  std::vector<int64_t> received(static_cast<size_t>(total));
  world.all_to_all_varied(view(send), send_counts, view(received), receive_counts);
  std::vector<std::vector<int64_t>> words_from;
  auto at = received.begin();
  for (const int64_t count : receive_counts) {
    words_from.emplace_back(at, at + count);
    at += count;
  }
  return words_from;
}

}  // namespace

std::vector<int> disks_of_position(const Mesh& mesh, int position, const Disks& disks) {
  std::map<int, std::set<int>> tensor_ranks_of;
  for (int rank = 0; rank < mesh.world(); ++rank) {
    const Coordinate at = mesh.coordinate_of(rank);
    if (at.pipeline == position) tensor_ranks_of[disks.of_rank[static_cast<size_t>(rank)]].insert(at.tensor);
  }
  std::vector<int> whole, some;
  for (const auto& [disk, tensor_ranks] : tensor_ranks_of) {
    some.push_back(disk);
    if (static_cast<int>(tensor_ranks.size()) == mesh.tensor) whole.push_back(disk);
  }
  return whole.empty() ? some : whole;
}

void deal_to_disks(std::vector<HfTensor>& tensors, std::span<const int> position_of_group, const Mesh& mesh,
                   const Disks& disks) {
  std::vector<int64_t> bytes_of(static_cast<size_t>(disks.count()));
  std::map<int, std::vector<int>> disks_of;
  for (HfTensor& tensor : tensors) {
    const int position = position_of_group[static_cast<size_t>(tensor.group)];
    const auto [it, is_new] = disks_of.try_emplace(position);
    if (is_new) it->second = disks_of_position(mesh, position, disks);
    tensor.part = *std::min_element(it->second.begin(), it->second.end(), [&](int a, int b) {
      return bytes_of[static_cast<size_t>(a)] < bytes_of[static_cast<size_t>(b)];
    });
    bytes_of[static_cast<size_t>(tensor.part)] += tensor.shape.numel() * size_bytes(tensor.dtype);
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const HfTensor& a, const HfTensor& b) {
    return std::tie(a.group, a.part) < std::tie(b.group, b.part);
  });
}

SavePart part_of_checkpoint(const Storage& storage) {
  if (storage.kind() == StorageKind::shared) return {.group = storage.world()};
  const Disks& disks = storage.disks();
  return {.group = storage.group(),
          .index = storage.disk(),
          .of = disks.count(),
          .host = disks.names[static_cast<size_t>(storage.disk())]};
}

std::string name_of_save(const Storage& storage) {
  if (storage.kind() == StorageKind::shared) return "";
  return broadcast_text(storage.world(), new_save_name(), 0);
}

std::map<std::string, int> parts_of(std::span<const HfTensor> tensors) {
  std::map<std::string, int> part_of;
  for (const HfTensor& tensor : tensors) part_of[tensor.name] = tensor.part;
  return part_of;
}

MovedSlices::MovedSlices(const Storage& storage, std::span<const StateSlice> slices,
                         const std::map<std::string, int>& part_of) {
  if (storage.disks().count() == 1) {
    slices_.assign(slices.begin(), slices.end());
    return;
  }
  Communicator& world = storage.world();
  const int own_disk = storage.disk();
  std::map<std::string_view, int64_t> number_of;
  std::vector<const std::string*> names;
  for (const auto& [name, part] : part_of) {
    number_of.emplace(name, std::ssize(names));
    names.push_back(&name);
  }

  // 1. What leaves goes to the rank at the same place of the other disk, so that all get about as much.
  std::vector<std::vector<int64_t>> words_for(static_cast<size_t>(world.size()));
  std::vector<std::pair<int, Tensor>> leaving;
  for (const StateSlice& slice : slices) {
    StateSlice& kept = slices_.emplace_back(slice);
    if (!slice.weight || slice.slice.numel() == 0) continue;
    const auto part = part_of.find(slice.name);
    check(part != part_of.end(), "{} is not among the tensors to write", slice.name);
    if (part->second == own_disk) continue;
    const std::vector<int> there = storage.disks().ranks_of(part->second);
    const int to = there[static_cast<size_t>(storage.group().rank()) % there.size()];
    std::vector<int64_t>& words = words_for[static_cast<size_t>(to)];
    add_words(number_of.at(slice.name), slice.slice, words);
    for (int dim = 0; dim < Shape::max_dims; ++dim)
      words.push_back(dim < slice.shape.dims() ? slice.shape[dim] : 0);
    leaving.emplace_back(to, slice.weight);
    kept.weight = {};
  }

  // 2. All learn what comes, then it travels.
  const std::vector<std::vector<int64_t>> words_from = exchanged(world, words_for);
  std::vector<Transfer> transfers;
  for (int from = 0; from < world.size(); ++from) {
    const std::vector<int64_t>& words = words_from[static_cast<size_t>(from)];
    constexpr size_t step = words_per_slice + Shape::max_dims;
    for (size_t at = 0; at + step <= words.size(); at += step) {
      const Slice slice = slice_from(words.data() + at);
      Shape shape;
      for (int dim = 0; dim < slice.box.extent.dims(); ++dim)
        shape.push_back(words[at + words_per_slice + static_cast<size_t>(dim)]);
      std::vector<float>& room = received_.emplace_back(static_cast<size_t>(slice.numel()));
      const Tensor weight(room.data(), Shape{slice.numel()}, DType::f32);
      transfers.push_back(world.irecv(weight, from, Lane::control));
      slices_.push_back({*names[static_cast<size_t>(words[at])], shape, slice, weight, {}, {}});
    }
  }
  for (const auto& [to, weight] : leaving) transfers.push_back(world.isend(weight, to, Lane::control));
  for (Transfer& transfer : transfers) transfer.wait();
}

}  // namespace ptrain
