#include "src/io/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Kind = Manifest::Kind;
using Tensors = StoredTensors;

constexpr std::string_view name_prefix = "step-";
constexpr std::string_view making_prefix = ".tmp-";
constexpr std::string_view trash_prefix = ".trash-";

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) log::warn("{}: cannot be removed: {}", path.string(), error.message());
}

/// Takes a directory out of sight in one step, then deletes it.
void discard(const fs::path& path) {
  const fs::path trash = path.parent_path() / (std::string(trash_prefix) + path.filename().string());
  remove_tree(trash);
  rename_path(path, trash);
  remove_tree(trash);
}

/// What earlier runs left half done.
void remove_leftovers(const fs::path& root) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(making_prefix) || name.starts_with(trash_prefix)) leftovers.push_back(it->path());
  }
  for (const fs::path& path : leftovers) remove_tree(path);
}

/// One dataset of this rank's state file.
struct StateEntry {
  Kind kind;
  const StateSlice* slice;
  Tensor source;
};

bool is_narrower_than_f32(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::f16;
}

std::vector<StateEntry> state_entries(const SaveRequest& request, std::span<const StateSlice> slices) {
  std::map<std::string_view, DType> dtype_of;
  for (const HfTensor& tensor : request.tensors) dtype_of[tensor.name] = tensor.dtype;
  std::vector<StateEntry> entries;
  for (const StateSlice& slice : slices) {
    if (slice.slice.numel() == 0) continue;
    const auto dtype = dtype_of.find(slice.name);
    check(dtype != dtype_of.end(), "{} is not among the checkpoint's tensors", slice.name);
    check_inside(slice.slice, slice.shape, slice.name);
    if (slice.weight && is_narrower_than_f32(dtype->second))
      entries.push_back({Kind::master, &slice, slice.weight});
    if (slice.first_moment) entries.push_back({Kind::first_moment, &slice, slice.first_moment});
    if (slice.second_moment) entries.push_back({Kind::second_moment, &slice, slice.second_moment});
  }
  return entries;
}

/// Adds a slice to the tensor of that name, or begins one.
void add_slice(std::vector<StoredTensor>& tensors, std::map<std::string, size_t>& index,
               const std::string& name, const Shape& shape, DType dtype, StoredSlice slice) {
  const auto [it, is_new] = index.emplace(name, tensors.size());
  if (is_new) tensors.push_back({name, shape, dtype, {}});
  tensors[it->second].slices.push_back(std::move(slice));
}

/// Writes this rank's state: HDF5 lays the datasets out, then their bytes go to their places. Returns the
/// tensors and the file's entry, or nothing where this rank has no state.
std::optional<ManifestFile> write_state(const fs::path& directory, int rank, int64_t step,
                                        const std::vector<StateEntry>& entries, Tensors& written) {
  if (entries.empty()) return std::nullopt;
  const std::string name = fmt::format("state/rank-{:05}.h5", rank);
  std::vector<Hdf5Dataset> datasets;
  {
    Hdf5Writer writer(directory / name);
    writer.set("step", step);
    writer.set("boxes", "which part of its tensor each dataset is, stands in ../MANIFEST.json");
    std::map<std::string, int> count_of;
    for (const StateEntry& entry : entries) {
      const std::string group = fmt::format("{}/{}", name_of(entry.kind), entry.slice->name);
      datasets.push_back(writer.add(fmt::format("{}/{}", group, count_of[group]++), DType::f32,
                                    Shape{entry.slice->slice.numel()}));
    }
    writer.close();
  }
  File file = File::open_for_writing(directory / name);
  std::vector<char> staging;
  std::map<Kind, std::map<std::string, size_t>> index;
  for (size_t i = 0; i < entries.size(); ++i) {
    const StateSlice& slice = *entries[i].slice;
    StoredSlice stored{name, datasets[i].offset, Packing::packed, slice.slice, {}};
    write_slice(file, stored, slice.shape, DType::f32, entries[i].source, staging);
    add_slice(written[entries[i].kind], index[entries[i].kind], slice.name, slice.shape, DType::f32,
              std::move(stored));
  }
  file.sync();
  file.close();
  return describe_file(directory, name, written);
}

/// Joins what the ranks wrote. `shares` are their JSON texts.
void merge_shares(const std::vector<std::string>& shares, Manifest& manifest) {
  std::map<Kind, std::map<std::string, size_t>> index;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    const std::string where = fmt::format("the share of rank {}", rank);
    const Json share = parse_json(shares[rank], where);
    for (const auto& [kind, tensors] : tensors_from_json(share["tensors"], where)) {
      for (const StoredTensor& tensor : tensors) {
        for (const StoredSlice& slice : tensor.slices) {
          add_slice(manifest.tensors[kind], index[kind], tensor.name, tensor.shape, tensor.dtype, slice);
        }
      }
    }
    if (!share["state"].is_null()) {
      const Json& state = share["state"];
      manifest.files.push_back(
          {state["name"], state["bytes"].get<int64_t>(), state["rest_crc32c"].get<uint32_t>()});
    }
  }
}

/// Moves the finished directory into sight and deletes what is older than asked for.
void commit(const fs::path& making, const fs::path& final, const fs::path& root, int64_t step, int64_t keep) {
  sync_directory(making / "state");
  sync_directory(making);
  std::error_code error;
  if (fs::exists(final, error)) discard(final);
  rename_path(making, final);
  sync_directory(root);
  // Steps above this one are of a past that the run left behind: neither counted nor touched.
  int64_t kept = 0;
  for (const auto& [other_step, path] : list_steps(root)) {
    if (other_step > step) continue;
    if (++kept > keep && keep > 0) discard(path);
  }
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{:08}", name_prefix, step);
}

std::vector<std::pair<int64_t, fs::path>> list_steps(const fs::path& root) {
  std::vector<std::pair<int64_t, fs::path>> steps;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(name_prefix)) continue;
    const auto [rest, bad] =
        std::from_chars(name.data() + name_prefix.size(), name.data() + name.size(), step);
    if (bad == std::errc() && rest == name.data() + name.size()) steps.emplace_back(step, it->path());
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

fs::path save_checkpoint(Communicator& world, const SaveRequest& request,
                         std::span<const StateSlice> slices) {
  const fs::path final = request.root / checkpoint_name(request.step);
  const fs::path making = request.root / (std::string(making_prefix) + checkpoint_name(request.step));
  const int rank = world.rank();

  // 1. The directory with its small files, and the safetensors files in their full length.
  std::vector<std::string> small_files;
  agreed(world, [&] {
    if (rank != 0) return;
    make_directories(request.root);
    remove_leftovers(request.root);
    make_directories(making / "state");
    if (!request.source.empty()) small_files = copy_small_files(request.source, making);
  });
  HfWriter writer(world, making, plan_hf_files(request.tensors));

  // 2. Every rank writes its slices and brings them to the disk.
  Tensors written;
  std::optional<ManifestFile> state;
  agreed(world, [&] {
    const std::vector<StateEntry> entries = state_entries(request, slices);
    for (const StateSlice& slice : slices) {
      if (slice.weight && slice.slice.numel() > 0) writer.write(slice.name, slice.slice, slice.weight);
    }
    writer.sync();
    state = write_state(making, rank, request.step, entries, written);
  });
  writer.finish();

  // 3. Rank 0 learns what lies where. After this nobody can fail but rank 0.
  for (const auto& [name, tensor] : writer.written()) written[Kind::weight].push_back(tensor);
  const Json share = {
      {"tensors", to_json(written)},
      {"state", state ? Json{{"name", state->name}, {"bytes", state->bytes}, {"rest_crc32c", state->rest_crc}}
                      : Json(nullptr)}};
  const std::vector<std::string> shares = gather_text(world, share.dump(), 0);
  agreed(world, [&] {
    if (rank != 0) return;
    Manifest manifest;
    manifest.step = request.step;
    manifest.run = request.run;
    merge_shares(shares, manifest);
    for (const std::string& name : small_files) manifest.files.push_back(describe_file(making, name));
    const HfPlan& plan = writer.plan();
    if (!plan.index_text.empty()) {
      manifest.files.push_back(describe_file(making, "model.safetensors.index.json"));
    }
    for (const HfPlan::File& file : plan.files) {
      manifest.files.push_back(describe_file(making, file.name, manifest.tensors));
    }
    const std::string text = to_text(manifest);
    parse_manifest(text, manifest_name);  // what could not be read back is not worth committing
    write_text(making / manifest_name, text);
    commit(making, final, request.root, request.step, request.keep);
  });
  return final;
}

}  // namespace ptrain
