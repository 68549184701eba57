#include "src/train/weight_check.h"

#include <algorithm>
#include <set>

#include "kernels/base/log.h"
#include "src/model/weights.h"

namespace ptrain {
namespace {

constexpr size_t most_named = 3;

/// "a, b, c, …"
std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), most_named); ++i) text += (i == 0 ? "" : ", ") + names[i];
  return names.size() > most_named ? text + ", …" : text;
}

/// "1 tensor is", "2 tensors are"
std::string tensors_are(size_t count) {
  return count == 1 ? "1 tensor is" : fmt::format("{} tensors are", count);
}

/// What a weight is read from; 8-bit floats come with scales that we do not know.
bool is_readable(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

bool is_left_out_by_all(const ModelSpec& spec, std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || (spec.is_tied && name == "lm_head.weight");
}

}  // namespace

std::vector<std::string> check_weights(const ModelSpec& spec, const HfDir& directory) {
  std::set<std::string, std::less<>> wanted;
  std::vector<std::string> different, missing, others;
  for (const WeightSpec& weight : weights_of(spec, SequenceParallel::off, false)) {
    const std::string& name = weight.piece.name;
    wanted.insert(name);
    const StoredTensor* stored = directory.find(name);
    if (stored == nullptr) {
      missing.push_back(name);
    } else if (stored->shape != weight.piece.shape) {
      different.push_back(
          fmt::format("{} is {}, not {}", name, to_string(stored->shape), to_string(weight.piece.shape)));
    } else if (!is_readable(stored->dtype)) {
      others.push_back(fmt::format("{} is {}", name, name_of(stored->dtype)));
    }
  }
  const std::string where = directory.path().string();
  check(
      different.empty(), ExitCode::input,
      "{}: {} of another shape than config.json asks for: {}; config.json and the weights are of two models",
      where, tensors_are(different.size()), listed(different));
  check(
      missing.empty(), ExitCode::input,
      "{}: {} missing in the safetensors files: {}; a file was left out, or config.json is of another model",
      where, tensors_are(missing.size()), listed(missing));
  check(others.empty(), ExitCode::input,
        "{}: {} not of a floating-point type: {}; take the model as it was before it was quantised", where,
        tensors_are(others.size()), listed(others));

  std::vector<std::string> unused;
  for (const StoredTensor& stored : directory.tensors()) {
    if (!wanted.contains(stored.name) && !is_left_out_by_all(spec, stored.name))
      unused.push_back(stored.name);
  }
  return unused;
}

bool has_weight_files(const std::filesystem::path& directory) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    for (const char* ending :
         {".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf"}) {
      if (name.ends_with(ending)) return true;
    }
  }
  return false;
}

void warn_of_unused(const HfDir& directory, const std::vector<std::string>& names) {
  if (names.empty()) return;
  log::warn("{}: {} left out, because the model that config.json describes has no such part: {}",
            directory.path().string(), tensors_are(names.size()), listed(names));
}

}  // namespace ptrain
