#include "src/io/parts.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <tuple>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

using Kind = Manifest::Kind;

/// The copies that one save wrote.
struct Save {
  std::string name;
  int of = 1;
  std::vector<const PartCopy*> copies;

  std::set<int> whole_parts() const {
    std::set<int> parts;
    for (const PartCopy* copy : copies)
      if (copy->fault.empty()) parts.insert(copy->part.index);
    return parts;
  }
  bool is_complete() const { return static_cast<int>(whole_parts().size()) == of; }
};

/// A list that grows by "a", ", b", …
void list(std::string& text, std::string_view more, std::string_view between = "; ") {
  if (!text.empty()) text += between;
  text += more;
}

/// "host-b: …" where there are several disks.
std::string fault_text(const PartCopy& copy, const Disks& disks) {
  if (disks.count() == 1) return copy.fault;
  return fmt::format("{}: {}", disks.names[static_cast<size_t>(copy.disk)], copy.fault);
}

/// "part 1 of 2, written by host-b, is on no disk that this job sees; host-a has part 0"
std::string missing_text(const Save& save, const Disks& disks) {
  const std::set<int> whole = save.whole_parts();
  std::string text, has;
  for (int part = 0; part < save.of; ++part) {
    if (whole.contains(part)) continue;
    std::string faults;
    for (const PartCopy* copy : save.copies)
      if (copy->part.index == part) list(faults, fault_text(*copy, disks));
    const std::string name = save.of == 1 ? "" : fmt::format("part {} of {} ", part, save.of);
    list(text, faults.empty() ? name + "is on no disk that this job sees" : name + faults);
  }
  for (const PartCopy* copy : save.copies) {
    if (!copy->fault.empty()) continue;
    const std::string& writer = copy->part.host;
    list(has,
         fmt::format("{} has part {}{}", disks.names[static_cast<size_t>(copy->disk)], copy->part.index,
                     writer.empty() ? "" : fmt::format(" (written by {})", writer)),
         ", ");
  }
  if (!has.empty()) list(text, has);
  return text;
}

/// Adds the slices of one part to what the parts before it hold.
void add_tensors(const Manifest& part, Manifest& whole) {
  for (const auto& [kind, tensors] : part.tensors) {
    std::vector<StoredTensor>& all = whole.tensors[kind];
    std::map<std::string, size_t, std::less<>> index;
    for (const StoredTensor& tensor : all) index.emplace(tensor.name, index.size());
    for (const StoredTensor& tensor : tensors) {
      const auto [it, is_new] = index.emplace(tensor.name, all.size());
      if (is_new) {
        all.push_back(tensor);
        continue;
      }
      StoredTensor& known = all[it->second];
      check(known.shape == tensor.shape && known.dtype == tensor.dtype, ExitCode::input,
            "{} of {} is {} {} in one part and {} {} in another", name_of(kind), tensor.name,
            name_of(known.dtype), to_string(known.shape), name_of(tensor.dtype), to_string(tensor.shape));
      known.slices.insert(known.slices.end(), tensor.slices.begin(), tensor.slices.end());
    }
  }
}

}  // namespace

PartChoice choose_parts(std::vector<PartCopy> found, const Disks& disks) {
  std::sort(found.begin(), found.end(), [](const PartCopy& a, const PartCopy& b) {
    return std::tie(a.part.index, a.disk, a.directory) < std::tie(b.part.index, b.disk, b.directory);
  });
  std::map<std::pair<std::string, int>, Save> saves;
  std::string unknown;  // of which save and part, nobody can tell
  for (const PartCopy& copy : found) {
    if (copy.part.of == 0) {
      list(unknown, fault_text(copy, disks));
      continue;
    }
    Save& save = saves[{copy.part.save, copy.part.of}];
    save.name = copy.part.save;
    save.of = copy.part.of;
    save.copies.push_back(&copy);
  }
  const Save* fullest = nullptr;
  for (auto it = saves.rbegin(); it != saves.rend(); ++it) {  // names grow with time
    const Save& save = it->second;
    if (save.is_complete()) {
      PartChoice choice;
      for (const PartCopy* copy : save.copies)
        if (copy->fault.empty()) choice.copies.push_back(*copy);
      return choice;
    }
    if (!fullest || save.whole_parts().size() > fullest->whole_parts().size()) fullest = &save;
  }
  std::string missing = fullest ? missing_text(*fullest, disks) : "";
  if (!unknown.empty()) list(missing, unknown);
  return {{}, std::move(missing)};
}

Manifest join_parts(const std::vector<Manifest>& parts, std::string_view where) {
  check(!parts.empty(), "no parts to join");
  Manifest whole;
  whole.step = parts[0].step;
  whole.run = std::min_element(parts.begin(), parts.end(), [](const Manifest& a, const Manifest& b) {
                return a.part.index < b.part.index;
              })->run;
  std::set<int> indices;
  std::map<std::string, ManifestFile> files;
  for (const Manifest& part : parts) {
    check(part.step == whole.step && part.part.of == parts[0].part.of && part.part.save == parts[0].part.save,
          ExitCode::input, "{}: its parts {} and {} were not saved together", where, parts[0].part.index,
          part.part.index);
    check(indices.insert(part.part.index).second, ExitCode::input, "{}: part {} is there twice", where,
          part.part.index);
    for (const ManifestFile& file : part.files) {
      const ManifestFile& known = files.emplace(file.name, file).first->second;
      check(known.bytes == file.bytes && known.rest_crc == file.rest_crc, ExitCode::input,
            "{}: {} of part {} is another than that of a part before it", where, file.name, part.part.index);
    }
    add_tensors(part, whole);
  }
  check(static_cast<int>(indices.size()) == parts[0].part.of, ExitCode::input, "{}: {} of its {} parts",
        where, indices.size(), parts[0].part.of);
  for (const auto& [name, file] : files) whole.files.push_back(file);
  for (const auto& [kind, tensors] : whole.tensors) {
    for (const StoredTensor& tensor : tensors) {
      std::vector<Slice> slices;
      for (const StoredSlice& stored : tensor.slices) slices.push_back(stored.slice);
      const std::string fault = tiling_fault(tensor.shape, slices);
      check(fault.empty(), ExitCode::input, "{}: {} of {}: {}", where, name_of(kind), tensor.name, fault);
    }
  }
  return whole;
}

std::string new_save_name() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("{:016x}-{:x}", std::chrono::duration_cast<std::chrono::microseconds>(now).count(),
                     ::getpid());
}

}  // namespace ptrain
