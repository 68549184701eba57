#include "src/io/find.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/load.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Kind = Manifest::Kind;

constexpr std::string_view replica_prefix = "replica-";

/// What a disk has of one step: copies of parts, with the texts of their manifests.
struct DiskView {
  std::vector<PartCopy> copies;
  std::map<std::string, std::string> texts;  // by directory
};

/// Looks at one directory. A fault is noted, not thrown.
void look_at(const fs::path& root, const std::string& directory, int64_t step, int disk, DiskView& view) {
  PartCopy copy{.part = {}, .disk = disk, .directory = directory, .fault = {}};
  try {
    const Manifest manifest = open_manifest(root / directory);
    check(step < 0 || manifest.step == step, ExitCode::input, "{}: is the checkpoint of step {}",
          (root / directory).string(), manifest.step);
    std::string text = read_text(root / directory / manifest_name, std::numeric_limits<int64_t>::max());
    copy.part = manifest.part;
    // A whole one has no name of its save; those of two disks are the same only if their manifests are.
    if (copy.part.save.empty()) copy.part.save = fmt::format("{:08x}", crc32c(text.data(), text.size()));
    view.texts[directory] = std::move(text);
  } catch (const Error& error) {
    copy.part.of = 0;
    copy.fault = error.what();
  }
  view.copies.push_back(std::move(copy));
}

/// Directories of a step on this disk, whole, part or replica.
std::vector<std::string> directories_of(const fs::path& root, int64_t step) {
  std::vector<std::string> names;
  for (const auto& [found, path] : list_steps(root))
    if (found == step) names.push_back(path.filename().string());
  for (const ReplicaDirectory& replica : list_replicas(root))
    if (replica.step == step) names.push_back(replica.path.filename().string());
  return names;
}

int64_t newest_step(const fs::path& root, int64_t below_step) {
  int64_t newest = -1;
  for (const auto& [step, path] : list_steps(root))
    if (step < below_step) newest = std::max(newest, step);
  for (const ReplicaDirectory& replica : list_replicas(root))
    if (replica.step < below_step) newest = std::max(newest, replica.step);
  return newest;
}

Json to_json(const PartCopy& copy) {
  return {{"index", copy.part.index}, {"of", copy.part.of},          {"save", copy.part.save},
          {"host", copy.part.host},   {"directory", copy.directory}, {"fault", copy.fault}};
}

/// What the disks have of a step (-1: of whatever step it is), as all ranks know it. `names`: of this disk's
/// directories to look at; `damaged`: those that did not read back.
std::vector<PartCopy> copies_of_step(const Storage& storage, const fs::path& root, int64_t step,
                                     const std::vector<std::string>& names,
                                     const std::map<std::string, std::string>& damaged, DiskView& mine) {
  Json list = Json::array();
  if (storage.is_first_of_disk()) {
    for (const std::string& name : names) look_at(root, name, step, storage.disk(), mine);
    for (PartCopy& copy : mine.copies) {
      if (const auto it = damaged.find(copy.directory); it != damaged.end()) copy.fault = it->second;
      list.push_back(to_json(copy));
    }
  }
  std::vector<PartCopy> copies;
  const std::vector<std::string> texts =
      all_gather_text(storage.world(), list.dump(-1, ' ', false, Json::error_handler_t::replace));
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    for (const Json& json : parse_json(texts[rank], "what a disk has")) {
      copies.push_back({.part = {json["index"], json["of"], json["save"], json["host"]},
                        .disk = storage.disks().of_rank[rank],
                        .directory = json["directory"],
                        .fault = json["fault"]});
    }
  }
  return copies;
}

/// Collective: one manifest of all parts, from the disks that have them.
void join_found(const Storage& storage, const DiskView& mine, FoundCheckpoint& found) {
  std::vector<Manifest> parts;
  int last = -1;
  for (const PartCopy& copy : found.copies) {
    if (std::exchange(last, copy.part.index) == copy.part.index) continue;
    const int root = storage.disks().first_rank(copy.disk);
    const bool is_mine = root == storage.world().rank();
    const std::string text =
        broadcast_text(storage.world(), is_mine ? mine.texts.at(copy.directory) : std::string_view(), root);
    parts.push_back(parse_manifest(text, copy.directory));
    for (const ManifestFile& file : parts.back().files) found.part_of_file[file.name] = copy.part.index;
  }
  found.manifest = join_parts(parts, found.path.string());
}

/// Copies of this disk that did not read back, with the reason.
using Damaged = std::map<int64_t, std::map<std::string, std::string>>;

/// Collective. `reason`: why the last one was passed over.
std::optional<FoundCheckpoint> find_newest(const Storage& storage, const fs::path& root, int64_t below_step,
                                           const Damaged& damaged, std::string& reason) {
  Communicator& world = storage.world();
  while (true) {
    int64_t step = storage.is_first_of_disk() ? newest_step(root, below_step) : -1;
    world.all_reduce(Tensor(&step, Shape{1}, DType::i64), Reduce::max);
    if (step < 0) return std::nullopt;
    DiskView mine;
    const auto known = damaged.find(step);
    FoundCheckpoint found{.path = root / checkpoint_name(step), .step = step};
    PartChoice choice =
        choose_parts(copies_of_step(storage, root, step, directories_of(root, step),
                                    known == damaged.end() ? Damaged::mapped_type() : known->second, mine),
                     storage.disks());
    try {
      check(!choice.copies.empty(), ExitCode::input, "{}", choice.missing);
      found.copies = std::move(choice.copies);
      join_found(storage, mine, found);
      return found;
    } catch (const Error& error) {  // the same on every rank: all judge the same texts
      reason = error.what();
      if (world.rank() == 0)
        log::warn("checkpoint {} is not whole and is passed over: {}", checkpoint_name(step), reason);
    }
    below_step = step;
  }
}

/// The directory on a disk in which a file lies, or empty.
std::string directory_of(const FoundCheckpoint& found, int disk, const std::string& file) {
  if (found.copies.empty()) return found.path.filename().string();
  const int part = found.part_of_file.at(file);
  for (const PartCopy& copy : found.copies)
    if (copy.disk == disk && copy.part.index == part) return copy.directory;
  return "";
}

std::vector<WantedSlice> wanted_of(std::span<const StateSlice> slices, Tensor StateSlice::*member) {
  std::vector<WantedSlice> wanted;
  for (const StateSlice& slice : slices) {
    if (slice.*member && slice.slice.numel() > 0) {
      wanted.push_back({slice.name, slice.shape, slice.slice, slice.*member});
    }
  }
  return wanted;
}

/// Each weight from the wider of the two places where it may lie.
std::vector<StoredTensor> widest_weights(const Manifest& manifest) {
  std::vector<StoredTensor> tensors = manifest.of(Kind::weight);
  std::map<std::string_view, const StoredTensor*> masters;
  for (const StoredTensor& master : manifest.of(Kind::master)) masters.emplace(master.name, &master);
  for (StoredTensor& tensor : tensors) {
    const auto master = masters.find(tensor.name);
    if (master != masters.end()) tensor = *master->second;
  }
  return tensors;
}

/// Weights that nobody loads, since a wider copy is there: a model's files all the same.
std::vector<StoredTensor> weights_beside_masters(const Manifest& manifest) {
  std::vector<StoredTensor> tensors = manifest.of(Kind::weight);
  std::set<std::string_view> masters;
  for (const StoredTensor& master : manifest.of(Kind::master)) masters.insert(master.name);
  std::erase_if(tensors, [&](const StoredTensor& tensor) { return !masters.contains(tensor.name); });
  return tensors;
}

/// Collective: reads every byte of the copies of a step and notes those that are damaged, each on its disk.
/// True where one was found.
bool note_damaged(const Storage& storage, const fs::path& root, const FoundCheckpoint& found,
                  Damaged& damaged) {
  int64_t faults = 0;
  for (const PartCopy& copy : found.copies) {
    if (!storage.is_first_of_disk() || copy.disk != storage.disk()) continue;
    std::string fault;
    const auto note = [&](const std::string& text) {
      if (fault.empty()) fault = text;
    };
    try {
      verify_checkpoint(root / copy.directory, open_manifest(root / copy.directory), note);
    } catch (const Error& error) {
      note(error.what());
    }
    if (fault.empty()) continue;
    damaged[found.step][copy.directory] = fault;
    ++faults;
  }
  storage.world().all_reduce(Tensor(&faults, Shape{1}, DType::i64));
  return faults > 0;
}

bool has_replicas(const FoundCheckpoint& found) {
  return std::any_of(found.copies.begin(), found.copies.end(), [&](const PartCopy& a) {
    return std::any_of(found.copies.begin(), found.copies.end(),
                       [&](const PartCopy& b) { return a.part.index == b.part.index && a.disk != b.disk; });
  });
}

}  // namespace

std::string replica_name(int64_t step, int part) {
  return fmt::format("{}{:08}-{:05}", replica_prefix, step, part);
}

std::vector<ReplicaDirectory> list_replicas(const fs::path& root) {
  std::vector<ReplicaDirectory> replicas;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(replica_prefix)) continue;
    ReplicaDirectory replica{.path = it->path()};
    const char* const last = name.data() + name.size();
    const auto step = std::from_chars(name.data() + replica_prefix.size(), last, replica.step);
    if (step.ec != std::errc() || step.ptr == last || *step.ptr != '-') continue;
    const auto part = std::from_chars(step.ptr + 1, last, replica.part);
    if (part.ec == std::errc() && part.ptr == last) replicas.push_back(replica);
  }
  std::sort(replicas.begin(), replicas.end(), [](const ReplicaDirectory& a, const ReplicaDirectory& b) {
    return std::tie(b.step, a.part) < std::tie(a.step, b.part);
  });
  return replicas;
}

std::optional<FoundCheckpoint> find_newest(const fs::path& root, int64_t below_step) {
  for (const auto& [step, path] : list_steps(root)) {
    if (step >= below_step) continue;
    try {
      Manifest manifest = open_manifest(path);
      check(manifest.step == step, ExitCode::input, "{}: is the checkpoint of step {}", path.string(),
            manifest.step);
      check(manifest.part.of == 1, ExitCode::input, "{}: is part {} of {} only", path.string(),
            manifest.part.index, manifest.part.of);
      return FoundCheckpoint{path, step, std::move(manifest), {}, {}};
    } catch (const Error& error) {
      log::warn("checkpoint {} is not whole and is passed over: {}", path.filename().string(), error.what());
    }
  }
  return std::nullopt;
}

std::optional<FoundCheckpoint> find_newest(const Storage& storage, const fs::path& root, int64_t below_step) {
  std::string reason;
  return find_newest(storage, root, below_step, {}, reason);
}

FoundCheckpoint find_at(const Storage& storage, const fs::path& directory) {
  const fs::path path = directory.has_filename() ? directory : directory.parent_path();
  FoundCheckpoint found{.path = path, .step = 0};
  int64_t step = -1;
  for (const auto& [number, other] : list_steps(path.parent_path()))
    if (other.filename() == path.filename()) step = number;
  storage.world().all_reduce(Tensor(&step, Shape{1}, DType::i64), Reduce::max);
  DiskView mine;
  const fs::path root = path.parent_path();
  std::vector<std::string> names = directories_of(root, step);
  const std::string own = path.filename().string();
  if (fs::exists(path) && std::find(names.begin(), names.end(), own) == names.end()) names.push_back(own);
  PartChoice choice = choose_parts(copies_of_step(storage, root, step, names, {}, mine), storage.disks());
  std::optional<Error> fault;
  try {
    check(!choice.copies.empty(), ExitCode::input, "{}: {}", path.string(),
          choice.missing.empty() ? "no host has a checkpoint there" : choice.missing);
    found.copies = std::move(choice.copies);
    join_found(storage, mine, found);
  } catch (const Error& error) {  // the same on every rank
    fault = error;
  }
  agree(storage.world(), fault);
  found.step = found.manifest.step;
  return found;
}

TensorSource FoundFiles::source(std::span<const StoredTensor> tensors, std::string_view what) {
  const fs::path root = checkpoint_.path.parent_path();
  const auto open = [this, root](const std::string& name) -> const File& {
    File& file = files_[name];
    if (!file) file = File::open(root / directory_of(checkpoint_, storage_.disk(), name) / name);
    return file;
  };
  const auto is_seen_by = [this](const std::string& name, int rank) {
    return !directory_of(checkpoint_, storage_.disks().of_rank[static_cast<size_t>(rank)], name).empty();
  };
  return {fmt::format("{} ({})", checkpoint_.path.string(), what), tensors, open, is_seen_by};
}

int64_t load_checkpoint(const Storage& storage, const FoundCheckpoint& checkpoint,
                        std::span<const StateSlice> wanted) {
  FoundFiles files(storage, checkpoint);
  const Manifest& manifest = checkpoint.manifest;
  const auto load = [&](const std::vector<StoredTensor>& tensors, const char* what,
                        Tensor StateSlice::*member) {
    return load_slices(storage.world(), files.source(tensors, what), wanted_of(wanted, member));
  };
  const std::vector<StoredTensor> unread = weights_beside_masters(manifest);
  return check_tensors(storage.world(), files.source(unread, "weight")) +
         load(widest_weights(manifest), "weight", &StateSlice::weight) +
         load(manifest.of(Kind::first_moment), "first moment", &StateSlice::first_moment) +
         load(manifest.of(Kind::second_moment), "second moment", &StateSlice::second_moment);
}

std::optional<FoundCheckpoint> resume_newest(const Storage& storage, const fs::path& root,
                                             std::span<const StateSlice> wanted,
                                             const std::function<void(const Manifest&)>& accept,
                                             int64_t below_step) {
  Communicator& world = storage.world();
  Damaged damaged;
  std::string last_reason;
  bool has_seen_one = false;
  while (true) {
    std::optional<FoundCheckpoint> found = find_newest(storage, root, below_step, damaged, last_reason);
    has_seen_one = has_seen_one || !last_reason.empty();
    if (!found) {
      agreed(world, [&] {
        check(!has_seen_one, ExitCode::no_checkpoint,
              "{}: there are checkpoints, but none is whole; the last reason: {}. Move the directory away to "
              "begin anew",
              root.string(), last_reason);
      });
      return std::nullopt;
    }
    if (accept) agreed(world, [&] { accept(found->manifest); });
    try {
      load_checkpoint(storage, *found, wanted);
      return found;
    } catch (const Error& error) {
      if (error.code() != ExitCode::input) throw;
      last_reason = error.what();
      if (world.rank() == 0) {
        log::warn("checkpoint {} is damaged and is passed over: {}", found->path.filename().string(),
                  last_reason);
      }
    }
    const bool may_have_others = has_replicas(*found) && note_damaged(storage, root, *found, damaged);
    below_step = found->step + (may_have_others ? 1 : 0);
  }
}

}  // namespace ptrain
