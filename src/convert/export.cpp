#include "src/convert/export.h"

#include <algorithm>
#include <functional>
#include <map>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"
#include "src/convert/publish.h"
#include "src/io/elements.h"
#include "src/io/file.h"
#include "src/io/find.h"
#include "src/io/hf_dir.h"
#include "src/io/hf_write.h"
#include "src/io/json.h"
#include "src/io/manifest.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t portion_elements = int64_t{4} << 20;

/// A tensor's place in the source and its dtype in the result.
struct Exported {
  StoredTensor stored;
  DType dtype;
};

std::vector<Exported> exported_of(const Manifest& manifest, std::optional<DType> dtype) {
  std::vector<Exported> tensors;
  std::map<std::string_view, const StoredTensor*> masters;
  for (const StoredTensor& master : manifest.of(Manifest::Kind::master))
    masters.emplace(master.name, &master);
  for (const StoredTensor& tensor : manifest.of(Manifest::Kind::weight)) {
    const DType wanted = dtype && is_float(tensor.dtype) ? *dtype : tensor.dtype;
    const auto master = masters.find(tensor.name);
    const bool is_master_better = master != masters.end() && wanted != tensor.dtype;
    tensors.push_back({is_master_better ? *master->second : tensor, wanted});
  }
  return tensors;
}

std::vector<Exported> find_tensors(const fs::path& source, std::optional<DType> dtype) {
  std::vector<Exported> tensors;
  if (!fs::exists(source / manifest_name)) {
    const HfDir model = HfDir::open(source);
    for (const StoredTensor& tensor : model.tensors()) {
      tensors.push_back({tensor, dtype && is_float(tensor.dtype) ? *dtype : tensor.dtype});
    }
    return tensors;
  }
  return exported_of(open_manifest(source), dtype);
}

void copy_tensor(const fs::path& source, const Exported& tensor, std::map<std::string, File>& files,
                 HfWriter& writer) {
  const Shape& shape = tensor.stored.shape;
  const DType via = tensor.dtype == tensor.stored.dtype ? tensor.dtype : DType::f32;
  std::vector<char> values, staging;
  for (int64_t begin = 0; begin < shape.numel(); begin += portion_elements) {
    const Slice portion{whole(shape), {begin, std::min(portion_elements, shape.numel() - begin)}};
    values.resize(static_cast<size_t>(portion.numel() * size_bytes(via)));
    const Tensor destination(values.data(), Shape{portion.numel()}, via);
    for (const StoredSlice& stored : tensor.stored.slices) {
      if (!touch(stored.slice, portion)) continue;
      File& file = files[stored.file];
      if (!file) file = File::open(source / stored.file);
      read_common(file, tensor.stored, stored, portion, destination, staging);
    }
    writer.write(tensor.stored.name, portion, destination);
  }
}

/// config.json with the new dtype, under the name that the file uses for it.
void write_config(const fs::path& source, const fs::path& directory, std::optional<DType> dtype) {
  Json config = read_hf_config(source);
  if (dtype) config[config.contains("dtype") ? "dtype" : "torch_dtype"] = torch_name(*dtype);
  write_text(directory / "config.json", config.dump(2) + "\n");
}

/// Collective: whether some disk has a part of several under the path.
bool is_in_parts(const Storage& storage, const fs::path& source) {
  int64_t has_part = 0;
  agreed(storage.world(), [&] {
    if (!storage.is_first_of_disk() || !fs::exists(source / manifest_name)) return;
    has_part = open_manifest(source).part.of > 1 ? 1 : 0;
  });
  storage.world().all_reduce(Tensor(&has_part, Shape{1}, DType::i64), Reduce::max);
  return has_part != 0;
}

/// A portion of a tensor and room for it.
struct Portion {
  const Exported* tensor;
  Slice slice;
};

std::vector<Portion> portions_of(const std::vector<Exported>& tensors) {
  std::vector<Portion> portions;
  for (const Exported& tensor : tensors) {
    const Shape& shape = tensor.stored.shape;
    for (int64_t begin = 0; begin < shape.numel(); begin += portion_elements)
      portions.push_back(
          {&tensor, {whole(shape), {begin, std::min(portion_elements, shape.numel() - begin)}}});
  }
  return portions;
}

/// Collective: every rank of the first disk gets a portion a round, from whichever disk has it, and writes
/// it.
void copy_parts(const Storage& storage, const FoundCheckpoint& found, const std::vector<Exported>& tensors,
                HfWriter* writer) {
  std::vector<StoredTensor> stored;
  for (const Exported& tensor : tensors) stored.push_back(tensor.stored);
  FoundFiles files(storage, found);
  const TensorSource source = files.source(stored, "weight");
  const std::vector<Portion> portions = portions_of(tensors);
  const auto num_writers = storage.disks().ranks_of(0).size();
  std::vector<char> values;
  for (size_t first = 0; first < portions.size(); first += num_writers) {
    const size_t mine = first + static_cast<size_t>(storage.group().rank());
    std::vector<WantedSlice> wanted;
    if (writer != nullptr && mine < portions.size()) {
      const auto& [tensor, slice] = portions[mine];
      const DType via = tensor->dtype == tensor->stored.dtype ? tensor->dtype : DType::f32;
      values.resize(static_cast<size_t>(slice.numel() * size_bytes(via)));
      wanted.push_back({tensor->stored.name, tensor->stored.shape, slice,
                        Tensor(values.data(), Shape{slice.numel()}, via)});
    }
    load_slices(storage.world(), source, wanted);
    agreed(storage.world(), [&] {
      for (const WantedSlice& portion : wanted)
        writer->write(portion.name, portion.slice, portion.destination);
    });
  }
}

}  // namespace

ExportReport export_model(const Storage& storage, const fs::path& source, const fs::path& directory,
                          std::optional<DType> dtype) {
  Communicator& world = storage.world();
  const fs::path work = work_directory(directory);
  const bool is_first = world.rank() == 0;
  const bool has_parts = is_in_parts(storage, source);
  std::vector<Exported> tensors;
  std::optional<FoundCheckpoint> found;
  if (has_parts) {
    found = find_at(storage, source);
    tensors = exported_of(found->manifest, dtype);
  }
  agreed(world, [&] {
    std::error_code error;
    if (is_first || !has_parts) {
      check(fs::is_directory(source), ExitCode::input, "{}: no such directory, expected a checkpoint",
            source.string());
      check(!fs::equivalent(source, directory, error), ExitCode::usage,
            "{}: cannot be exported onto itself: name another directory", source.string());
    }
    if (!has_parts) tensors = find_tensors(source, dtype);
    if (is_first) {
      fs::remove_all(work, error);
      make_directories(work);
    }
  });
  std::vector<HfTensor> declared;
  ExportReport report;
  for (const Exported& tensor : tensors) {
    declared.push_back({tensor.stored.name, tensor.stored.shape, tensor.dtype});
    report.tensors += 1;
    report.parameters += tensor.stored.shape.numel();
    report.bytes += tensor.stored.shape.numel() * size_bytes(tensor.dtype);
  }
  if (!has_parts) {
    HfWriter writer(world, work, plan_hf_files(declared));
    agreed(world, [&] {
      std::map<std::string, File> files;
      for (size_t i = 0; i < tensors.size(); ++i) {
        if (static_cast<int>(i) % world.size() == world.rank())
          copy_tensor(source, tensors[i], files, writer);
      }
      writer.sync();
    });
    writer.finish();
  } else {
    // Only ranks of the first disk write; the others hear of it at each round's end.
    std::optional<HfWriter> writer;
    std::optional<Error> fault;
    const auto tried = [&](const std::function<void()>& step) {
      try {
        if (storage.disk() == 0) step();
      } catch (const Error& error) {
        fault = error;
      }
      agree(world, fault);
    };
    tried([&] { writer.emplace(storage.group(), work, plan_hf_files(declared)); });
    copy_parts(storage, *found, tensors, writer ? &*writer : nullptr);
    tried([&] {
      agreed(storage.group(), [&] { writer->sync(); });
      writer->finish();
    });
  }
  agreed(world, [&] {
    if (!is_first) return;
    copy_small_files({source}, work, {"config.json"});
    write_config(source, work, dtype);
    publish_model(directory);
  });
  return report;
}

}  // namespace ptrain
