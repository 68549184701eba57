#include "src/io/hf_write.h"

#include <utility>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"
#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// The tensors of each file, by number.
std::vector<std::vector<size_t>> cut_into_files(const std::vector<HfTensor>& tensors,
                                                int64_t max_file_bytes) {
  std::vector<std::vector<size_t>> files;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t more = tensors[i].shape.numel() * size_bytes(tensors[i].dtype);
    const bool is_new_group =
        i > 0 && (tensors[i].group != tensors[i - 1].group || tensors[i].part != tensors[i - 1].part);
    if (files.empty() || is_new_group || bytes + more > max_file_bytes) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back(i);
    bytes += more;
  }
  return files;
}

}  // namespace

HfPlan plan_hf_files(const std::vector<HfTensor>& tensors, int64_t max_file_bytes) {
  HfPlan plan;
  const std::vector<std::vector<size_t>> files = cut_into_files(tensors, max_file_bytes);
  Json weight_map = Json::object();
  int64_t total_bytes = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    const std::string name = files.size() == 1
                                 ? hf_single_name
                                 : fmt::format("model-{:05}-of-{:05}.safetensors", f + 1, files.size());
    std::vector<TensorDeclaration> declarations;
    for (const size_t i : files[f]) {
      declarations.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape});
      const bool is_new =
          plan.places.emplace(tensors[i].name, HfPlan::Place{f, declarations.size() - 1}).second;
      check(is_new, "the tensor {} is to be written twice", tensors[i].name);
      weight_map[tensors[i].name] = name;
      total_bytes += tensors[i].shape.numel() * size_bytes(tensors[i].dtype);
    }
    plan.files.push_back({name, plan_file(declarations), tensors[files[f].front()].part});
  }
  if (files.size() > 1) {
    const Json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", std::move(weight_map)}};
    plan.index_text = index.dump(2) + "\n";
  }
  return plan;
}

HfPlan plan_of_part(const HfPlan& all, int part) {
  HfPlan own;
  own.index_text = all.index_text;
  std::vector<size_t> number(all.files.size());
  for (size_t f = 0; f < all.files.size(); ++f) {
    number[f] = own.files.size();
    if (all.files[f].part == part) own.files.push_back(all.files[f]);
  }
  for (const auto& [name, place] : all.places) {
    if (all.files[place.file].part == part)
      own.places.emplace(name, HfPlan::Place{number[place.file], place.entry});
  }
  return own;
}

void create_hf_files(const std::filesystem::path& directory, const HfPlan& plan) {
  for (const HfPlan::File& file : plan.files) {
    File created = File::create(directory / file.name, file.layout.file_bytes);
    created.write_at(0, file.layout.header.data(), static_cast<int64_t>(file.layout.header.size()));
    created.sync();
    created.close();
  }
}

void write_hf_index(const std::filesystem::path& directory, const HfPlan& plan) {
  if (!plan.index_text.empty()) write_text(directory / hf_index_name, plan.index_text);
}

HfTarget target_of(const HfPlan& plan, std::string_view name, const Slice& slice) {
  const auto place = plan.places.find(name);
  check(place != plan.places.end(), "{} is not among the tensors to write", name);
  const HfPlan::File& file = plan.files[place->second.file];
  const SafetensorsEntry& entry = file.layout.entries[place->second.entry];
  check_inside(slice, entry.shape, name);
  return {{file.name, entry.offset, Packing::in_tensor, slice, {}}, &entry};
}

HfWriter::HfWriter(Communicator& world, std::filesystem::path directory, HfPlan plan)
    : world_(world), directory_(std::move(directory)), plan_(std::move(plan)) {
  agreed(world_, [&] {
    if (world_.rank() != 0) return;
    make_directories(directory_);
    // Names under which an older model would be found instead of the new one, or together with it.
    for (const char* name : {hf_single_name, hf_index_name}) {
      std::error_code error;
      std::filesystem::remove(directory_ / name, error);
      check(!error, ExitCode::resources, "{}: cannot be removed: {}", (directory_ / name).string(),
            error.message());
    }
    create_hf_files(directory_, plan_);
    sync_directory(directory_);
  });
}

void HfWriter::write(std::string_view name, const Slice& slice, Tensor source) {
  auto [stored, planned] = target_of(plan_, name, slice);
  const SafetensorsEntry& entry = *planned;
  File& file = files_[stored.file];
  if (!file) file = File::open_for_writing(directory_ / stored.file);
  write_slice(file, stored, entry.shape, entry.dtype, source, staging_);
  StoredTensor& tensor =
      written_.try_emplace(entry.name, StoredTensor{entry.name, entry.shape, entry.dtype, {}}).first->second;
  tensor.slices.push_back(std::move(stored));
}

void HfWriter::sync() {
  for (auto& [name, file] : files_) {
    if (!file) continue;
    file.sync();
    file.close();
  }
}

void HfWriter::finish() {
  std::vector<int64_t> counts;
  for (const HfPlan::File& file : plan_.files) {
    for (const SafetensorsEntry& entry : file.layout.entries) {
      int64_t count = 0;
      const auto it = written_.find(entry.name);
      if (it != written_.end()) {
        for (const StoredSlice& slice : it->second.slices) count += slice.slice.numel();
      }
      counts.push_back(count);
    }
  }
  world_.all_reduce(Tensor(counts.data(), Shape{static_cast<int64_t>(counts.size())}, DType::i64));
  agreed(world_, [&] {
    size_t i = 0;
    for (const HfPlan::File& file : plan_.files) {
      for (const SafetensorsEntry& entry : file.layout.entries) {
        check(counts[i] == entry.shape.numel(), "{}: {} of its {} elements were written", entry.name,
              counts[i], entry.shape.numel());
        ++i;
      }
    }
    if (world_.rank() != 0) return;
    write_hf_index(directory_, plan_);
    sync_directory(directory_);
  });
}

}  // namespace ptrain
