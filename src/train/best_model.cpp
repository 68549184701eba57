#include "src/train/best_model.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/spread.h"
#include "src/train/store.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr const char* step_name = ".model-step";
constexpr int64_t max_note_bytes = 1000;

/// The step of <output>/model on this disk; -1 where there is none or nobody noted it.
int64_t model_step(const fs::path& output) {
  if (!fs::exists(output / "model" / "config.json") || !fs::exists(output / step_name)) return -1;
  try {
    return parse_json(read_text(output / step_name, max_note_bytes), step_name).at("step").get<int64_t>();
  } catch (const std::exception& error) {
    log::warn("{}: cannot be read: {}", (output / step_name).string(), error.what());
    return -1;
  }
}

std::string names_in(const fs::path& directory) {
  std::string names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory))
    if (entry.is_regular_file()) names += entry.path().filename().string() + "\n";
  return names;
}

/// A collective of two ranks: `directory` of rank `from` as that of the other.
void copy_model(Communicator& two, int from, const fs::path& output) {
  const bool is_source = two.rank() == from;
  const fs::path model = output / "model", here = is_source ? model : making_of(model);
  FirstError first;
  std::string names = is_source ? names_in(model) : "";
  names = broadcast_text(two, names, from);
  if (!is_source) {
    first.tried([&] {
      fs::remove_all(here);
      make_directories(here);
    });
  }
  for (size_t begin = 0; begin < names.size();) {
    const size_t end = names.find('\n', begin);
    first.note(spread_file(two, from, here / names.substr(begin, end - begin)));
    begin = end + 1;
  }
  agree(two, first.error());
}

}  // namespace

void note_model_step(const fs::path& output, int64_t step) {
  write_text(output / step_name, Json{{"step", step}}.dump() + "\n");
}

bool bring_best_model(const Storage& storage, const fs::path& output, int64_t step) {
  Communicator& world = storage.world();
  int64_t mine = storage.is_first_of_disk() ? model_step(output) : -1;
  std::vector<int64_t> steps(static_cast<size_t>(world.size()));
  world.all_gather(Tensor(&mine, Shape{1}, DType::i64),
                   Tensor(steps.data(), Shape{world.size()}, DType::i64));
  if (steps[0] >= step) return true;
  const auto newest = std::max_element(steps.begin(), steps.end());
  if (*newest < step) return false;

  const auto from = static_cast<int>(newest - steps.begin());
  const bool takes_part = world.rank() == 0 || world.rank() == from;
  const std::unique_ptr<Communicator> two = world.split(takes_part ? 0 : -1, world.rank());
  FirstError first;
  if (two) {
    first.tried([&] {
      copy_model(*two, 1, output);
      if (world.rank() == 0) {
        replace_by_made(output / "model");
        note_model_step(output, *newest);
        log::info(
            "the best model, of step {}, came from {}", *newest,
            storage.disks().names[static_cast<size_t>(storage.disks().of_rank[static_cast<size_t>(from)])]);
      }
    });
  }
  agree(world, first.error());
  return true;
}

}  // namespace ptrain
