#include "src/io/save_work.h"

#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/fault.h"
#include "kernels/base/log.h"
#include "src/io/file.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Kind = Manifest::Kind;

// What HDF5 takes beside the datasets' bytes, at most: its lists, and pages of their own for the large ones.
constexpr int64_t dataset_extra_bytes = 640, page_bytes = 4096, state_file_extra_bytes = 8192;

int64_t dataset_bytes(int64_t elements) {
  const int64_t bytes = elements * size_bytes(DType::f32);
  return bytes + dataset_extra_bytes + (bytes < page_bytes ? 0 : page_bytes);
}

bool is_narrower_than_f32(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::f16;
}

/// What of a slice goes to state/, and as what.
std::vector<std::pair<Kind, Tensor>> state_of(const StateSlice& slice, DType file_dtype) {
  std::vector<std::pair<Kind, Tensor>> parts;
  if (slice.weight && is_narrower_than_f32(file_dtype)) parts.emplace_back(Kind::master, slice.weight);
  if (slice.first_moment) parts.emplace_back(Kind::first_moment, slice.first_moment);
  if (slice.second_moment) parts.emplace_back(Kind::second_moment, slice.second_moment);
  return parts;
}

std::map<std::string_view, DType> dtypes_of(const SaveRequest& request) {
  std::map<std::string_view, DType> dtype_of;
  for (const HfTensor& tensor : request.tensors) dtype_of[tensor.name] = tensor.dtype;
  return dtype_of;
}

/// Gathers slices under their tensors.
class TensorTable {
 public:
  void add(Kind kind, const std::string& name, const Shape& shape, DType dtype, StoredSlice slice) {
    std::vector<StoredTensor>& tensors = tensors_[kind];
    const auto [it, is_new] = index_[kind].emplace(name, tensors.size());
    if (is_new) tensors.push_back({name, shape, dtype, {}});
    tensors[it->second].slices.push_back(std::move(slice));
  }
  StoredTensors take() { return std::move(tensors_); }

 private:
  StoredTensors tensors_;
  std::map<Kind, std::map<std::string, size_t>> index_;
};

/// The place in the data and in what is drawn at random, which the manifest has too.
void note_position(const Json& run, Hdf5Writer& writer) {
  if (!run.is_object() || !run.contains("position") || !run["position"].is_object()) return;
  for (const auto& [key, number] : run["position"].items())
    if (number.is_number_integer()) writer.set(key, number.get<int64_t>());
}

/// Takes a directory out of sight in one step, then deletes it.
void discard_checkpoint(const fs::path& root, int64_t step, const fs::path& path) {
  const fs::path trash = trash_of_checkpoint(root, step);
  remove_tree(trash);
  rename_path(path, trash);
  fault::point("during_deletion", step);
  remove_tree(trash);
}

}  // namespace

SaveWork::SaveWork(const SavePart& part, int rank, SaveRequest request, std::span<const StateSlice> slices)
    : is_leader_(part.group.rank() == 0),
      rank_(rank),
      part_{part.index, part.of, request.save, part.host},
      request_(std::move(request)),
      slices_(slices.begin(), slices.end()),
      making_(making_of_checkpoint(request_.root, request_.step)) {}

int64_t SaveWork::bytes() const {
  int64_t bytes = state_file_extra_bytes;
  const auto dtype_of = dtypes_of(request_);
  for (const StateSlice& slice : slices_) {
    const auto dtype = dtype_of.find(slice.name);
    if (dtype == dtype_of.end() || slice.slice.numel() == 0) continue;  // refused when it is written
    if (slice.weight) bytes += slice.slice.numel() * size_bytes(dtype->second);
    bytes += std::ssize(state_of(slice, dtype->second)) * dataset_bytes(slice.slice.numel());
  }
  return bytes;
}

void SaveWork::enter(SavePhase phase) {
  items_.clear();
  switch (phase) {
    case SavePhase::prepare:
      if (is_leader_) add([this] { plan_prepare(); });
      break;
    case SavePhase::write:
      add([this] { plan_write(); });
      break;
    case SavePhase::commit:
      plan_commit();
      break;
    case SavePhase::clean:
      if (is_leader_) add([this] { plan_clean(); });
      break;
    case SavePhase::discard:
      files_.clear();
      if (is_leader_) add([this] { remove_tree(making_); });
      break;
    case SavePhase::none:
      break;
  }
}

bool SaveWork::advance() {
  if (items_.empty()) return false;
  const std::function<void()> item = std::move(items_.front());
  items_.pop_front();
  try {
    item();
  } catch (const Error& error) {
    if (error.code() != ExitCode::resources) throw;
    const std::optional<int64_t> free = free_bytes(request_.root);
    throw Error(error.code(),
                fmt::format("{}; the checkpoint of step {} needs {} bytes in {}, {} are free", error.what(),
                            request_.step, part_bytes_, request_.root.string(),
                            free ? std::to_string(*free) : "an unknown number"),
                error.where());
  }
  return !items_.empty();
}

// ---- prepare: the leader
// -----------------------------------------------------------------------------------

void SaveWork::plan_prepare() {
  make_directories(request_.root);
  for (const fs::path& leftover : list_leftovers(request_.root)) remove_tree(leftover);
  check_room();
  make_directories(making_ / "state");
  add([this] { small_files_ = copy_small_files(request_.small_files, making_); });
  add([this] {
    plan_ = plan_of_part(plan_hf_files(request_.tensors), part_.index);
    create_hf_files(making_, plan_);
    write_hf_index(making_, plan_);
  });
}

/// Before the first byte, so that a full disk costs no time and fills no further.
void SaveWork::check_room() const {
  const std::optional<int64_t> free = free_bytes(request_.root);
  check(!free || *free >= part_bytes_, ExitCode::resources, "{}: not enough room, nothing was written",
        making_.string());
}

// ---- write: every rank
// -------------------------------------------------------------------------------------

std::string SaveWork::state_file() const {
  return fmt::format("state/rank-{:05}.h5", rank_);
}

void SaveWork::plan_write() {
  fault::point("open", request_.step);
  if (plan_.files.empty()) plan_ = plan_of_part(plan_hf_files(request_.tensors), part_.index);
  const auto dtype_of = dtypes_of(request_);
  for (const StateSlice& slice : slices_) {
    if (slice.slice.numel() == 0) continue;
    check(dtype_of.contains(slice.name), "{} is not among the checkpoint's tensors", slice.name);
    check_inside(slice.slice, slice.shape, slice.name);
    if (!slice.weight) continue;
    auto [stored, entry] = target_of(plan_, slice.name, slice.slice);
    outgoing_.push_back(
        {Kind::weight, slice.name, entry->shape, entry->dtype, slice.weight, std::move(stored)});
  }
  lay_out_state();
  int64_t chunks = 0;
  for (Outgoing& out : outgoing_) {
    out.stored.crcs.assign(static_cast<size_t>(num_chunks(out.stored.slice, out.dtype)), 0);
    chunks += std::ssize(out.stored.crcs);
  }
  int64_t number = 0;
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    for (int64_t chunk = 0; chunk < std::ssize(outgoing_[i].stored.crcs); ++chunk) {
      add([this, i, chunk] { write_chunk(i, chunk); });
      if (++number == (chunks + 1) / 2) add([this] { fault::point("mid_write", request_.step); });
    }
  }
  add([this] { sync_files(); });
  add([this] { make_share(); });
}

/// HDF5 lays the datasets out; their bytes then go to their places like those of the weights.
void SaveWork::lay_out_state() {
  const auto dtype_of = dtypes_of(request_);
  std::optional<Hdf5Writer> writer;
  std::map<std::string, int> count_of;
  for (const StateSlice& slice : slices_) {
    if (slice.slice.numel() == 0) continue;
    for (const auto& [kind, tensor] : state_of(slice, dtype_of.at(slice.name))) {
      if (!writer) {
        writer.emplace(making_ / state_file());
        writer->set("step", request_.step);
        note_position(request_.run, *writer);
        writer->set("boxes", "which part of its tensor each dataset is, stands in ../MANIFEST.json");
      }
      const std::string group = fmt::format("{}/{}", name_of(kind), slice.name);
      const Hdf5Dataset dataset =
          writer->add(fmt::format("{}/{}", group, count_of[group]++), DType::f32, Shape{slice.slice.numel()});
      outgoing_.push_back({kind,
                           slice.name,
                           slice.shape,
                           DType::f32,
                           tensor,
                           {state_file(), dataset.offset, Packing::packed, slice.slice, {}}});
    }
  }
  if (writer) writer->close();
}

const File& SaveWork::file(const std::string& name) {
  File& file = files_[name];
  if (!file) file = File::open_for_writing(making_ / name);
  return file;
}

void SaveWork::write_chunk(size_t outgoing, int64_t chunk) {
  Outgoing& out = outgoing_[outgoing];
  const File& to = file(out.stored.file);
  check(!fault::is_planted("eio", "mid_write", request_.step), ExitCode::resources,
        "{}: cannot be written: Input/output error (planted)", to.path().string());
  ptrain::write_chunk(to, out.stored, out.shape, out.dtype, out.source, chunk, staging_);
}

void SaveWork::sync_files() {
  fault::point("before_fsync", request_.step);
  for (auto& [name, file] : files_) {
    check(!fault::is_planted("eio", "before_fsync", request_.step), ExitCode::resources,
          "{}: cannot be brought to the disk: Input/output error (planted)", file.path().string());
    file.sync();
    file.close();
  }
  fault::point("after_shard", request_.step);
}

void SaveWork::make_share() {
  TensorTable table;
  bool has_state = false;
  for (Outgoing& out : outgoing_) {
    has_state |= out.kind != Kind::weight;
    table.add(out.kind, out.name, out.shape, out.dtype, std::move(out.stored));
  }
  outgoing_.clear();
  const StoredTensors tensors = table.take();
  Json share = {{"tensors", to_json(tensors)}, {"state", nullptr}};
  if (has_state) {
    const ManifestFile file = describe_file(making_, state_file(), tensors);
    share["state"] = {{"name", file.name}, {"bytes", file.bytes}, {"rest_crc32c", file.rest_crc}};
  }
  share_ = share.dump();
}

// ---- commit and clean: the leader
// --------------------------------------------------------------------------

void SaveWork::plan_commit() {
  // The other ranks have nothing to do here; they can be killed meanwhile all the same.
  add([this] { fault::point("before_manifest", request_.step); });
  if (is_leader_) add([this] { write_manifest(); });
  add([this] { fault::point("after_manifest", request_.step); });
  if (is_leader_) {
    add([this] {
      std::error_code error;
      if (fs::exists(path(), error)) discard_checkpoint(request_.root, request_.step, path());
      rename_path(making_, path());
    });
  }
  add([this] { fault::point("after_rename", request_.step); });
  if (is_leader_) add([this] { sync_directory(request_.root); });
}

void SaveWork::write_manifest() {
  Manifest manifest;
  manifest.step = request_.step;
  manifest.part = part_;
  manifest.run = request_.run;
  TensorTable table;
  for (size_t rank = 0; rank < shares_.size(); ++rank) {
    const std::string where = fmt::format("the share of rank {}", rank);
    const Json share = parse_json(shares_[rank], where);
    for (const auto& [kind, tensors] : tensors_from_json(share["tensors"], where)) {
      for (const StoredTensor& tensor : tensors) {
        for (const StoredSlice& slice : tensor.slices)
          table.add(kind, tensor.name, tensor.shape, tensor.dtype, slice);
      }
    }
    if (share["state"].is_null()) continue;
    const Json& state = share["state"];
    manifest.files.push_back(
        {state["name"], state["bytes"].get<int64_t>(), state["rest_crc32c"].get<uint32_t>()});
  }
  manifest.tensors = table.take();
  for (const std::string& name : small_files_) manifest.files.push_back(describe_file(making_, name));
  if (!plan_.index_text.empty()) manifest.files.push_back(describe_file(making_, hf_index_name));
  for (const HfPlan::File& planned : plan_.files)
    manifest.files.push_back(describe_file(making_, planned.name, manifest.tensors));
  const std::string text = to_text(manifest);
  parse_manifest(text, manifest_name);  // what could not be read back is not worth committing
  sync_directory(making_ / "state");
  write_text(making_ / manifest_name, text);
  sync_directory(making_);
}

/// Steps above this one are of a past that the run left behind: neither counted nor touched.
void SaveWork::plan_clean() {
  int64_t kept = 0;
  for (const auto& [step, path] : list_steps(request_.root)) {
    if (step > request_.step || ++kept <= request_.keep || request_.keep == 0) continue;
    add([this, step = step, path = path] {
      if (request_.may_delete && !request_.may_delete(path)) return;
      try {
        discard_checkpoint(request_.root, step, path);
      } catch (const Error& error) {
        log::warn("an old checkpoint stays: {}", error.what());
      }
    });
  }
}

}  // namespace ptrain
