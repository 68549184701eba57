#include "src/convert/export.h"

#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "parallel/comm/agree.h"
#include "src/convert/publish.h"
#include "src/io/elements.h"
#include "src/io/hf_dir.h"
#include "src/io/hf_write.h"
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

std::vector<Exported> find_tensors(const fs::path& source, std::optional<DType> dtype) {
  std::vector<Exported> tensors;
  if (!fs::exists(source / manifest_name)) {
    const HfDir model = HfDir::open(source);
    for (const StoredTensor& tensor : model.tensors()) {
      tensors.push_back({tensor, dtype && is_float(tensor.dtype) ? *dtype : tensor.dtype});
    }
    return tensors;
  }
  const Manifest manifest = open_manifest(source);
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

}  // namespace

ExportReport export_model(Communicator& world, const fs::path& source, const fs::path& directory,
                          std::optional<DType> dtype) {
  std::vector<Exported> tensors;
  const fs::path work = work_directory(directory);
  agreed(world, [&] {
    check(fs::is_directory(source), ExitCode::input, "{}: no such directory, expected a checkpoint",
          source.string());
    std::error_code error;
    check(!fs::equivalent(source, directory, error), ExitCode::usage,
          "{}: cannot be exported onto itself: name another directory", source.string());
    tensors = find_tensors(source, dtype);
    if (world.rank() == 0) {
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
  HfWriter writer(world, work, plan_hf_files(declared));
  agreed(world, [&] {
    std::map<std::string, File> files;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (static_cast<int>(i) % world.size() == world.rank()) copy_tensor(source, tensors[i], files, writer);
    }
    writer.sync();
  });
  writer.finish();
  agreed(world, [&] {
    if (world.rank() != 0) return;
    copy_small_files(source, work, {"config.json"});
    write_config(source, work, dtype);
    publish_model(directory);
  });
  return report;
}

}  // namespace ptrain
