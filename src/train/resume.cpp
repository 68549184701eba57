#include "src/train/resume.h"

#include <fmt/ranges.h>

#include "kernels/base/log.h"
#include "kernels/base/progress.h"
#include "kernels/base/rng.h"
#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "src/train/config_keys.h"
#include "src/train/store.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Of the lengths of all documents: other files, another tokenizer or another template give other lengths.
std::string data_digest(const DocumentSource& data) {
  uint64_t hash = hash_of("documents");
  for (int64_t sample = 0; sample < data.size(); ++sample) {
    hash = (hash ^ static_cast<uint64_t>(data.length(sample))) * 0x100000001b3;
  }
  return fmt::format("{} documents, {:016x}", data.size(), hash);
}

std::string model_digest(const Config& config) {
  const uint64_t identity =
      config.model.init == Config::Init::random
          ? hash_of(read_text(fs::path(config.model.path) / "config.json", int64_t{16} << 20))
          : HfDir::open(config.model.path).identity();
  return fmt::format("{:016x}", identity);
}

/// A value with the name that people know it by, which itself may change: "m/llama (01234567)".
std::string named_value(const Json& run, const std::string& key, const Json& value) {
  const auto text = value.get<std::string>();
  if (!run.contains("names") || !run["names"].contains(key)) return text;
  return fmt::format("{} ({})", run["names"][key].get<std::string>(), text);
}

}  // namespace

Json run_identity(const Config& config, const BaseModel& base, const DocumentSource& training_data) {
  Json fixed = {{"model", model_digest(config)}, {"data", data_digest(training_data)}};
  for (const char* key : {"model.init", "data.sequence_length", "data.packing", "data.overlong",
                          "data.shuffle", "data.mask_prompt", "batch.global", "train.seed"}) {
    fixed[key] = value_text(config, key);
  }
  if (!base.special_tokens.empty()) {
    fixed["data.special_tokens"] = Json(base.special_tokens).dump();
    fixed["model.new_token_init"] = value_text(config, "model.new_token_init");
  }
  Json free = Json::object();
  for (const char* key :
       {"optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_steps", "optimizer.min_ratio",
        "optimizer.decay_fraction", "optimizer.betas", "optimizer.epsilon", "optimizer.weight_decay",
        "optimizer.clip_grad_norm", "train.steps", "train.epochs", "precision"}) {
    free[key] = value_text(config, key);
  }
  const Json names = {{"model", config.model.path},
                      {"data", fmt::format("{}", fmt::join(config.data.train, ", "))}};
  return {{"fixed", fixed}, {"free", free}, {"names", names}};
}

void check_resume(const Json& saved, const Json& now, int64_t step) {
  const Json& fixed = now.at("fixed");
  const Json old_fixed = saved.value("fixed", Json::object());
  const auto compare = [&](const std::string& key) {
    const Json old = old_fixed.value(key, Json("nothing")), value = fixed.value(key, Json("nothing"));
    check(old == value, ExitCode::usage,
          "{}: the checkpoint of step {} was made with {}, now it is {}; put it back, or give another output",
          key, step, named_value(saved, key, old), named_value(now, key, value));
  };
  // What one of them lacks comes first: it may be why others differ, as special tokens change the data.
  for (const auto& [key, value] : fixed.items())
    if (!old_fixed.contains(key)) compare(key);
  for (const auto& [key, value] : old_fixed.items())
    if (!fixed.contains(key)) compare(key);
  for (const auto& [key, value] : fixed.items()) compare(key);
}

void warn_of_changes(const Json& saved, const Json& now, int64_t step) {
  for (const auto& [key, value] : now.at("free").items()) {
    if (!saved.contains("free") || !saved["free"].contains(key) || saved["free"][key] == value) continue;
    log::warn("{} changes from {} to {} after step {}", key, saved["free"][key].get<std::string>(),
              value.get<std::string>(), step);
  }
}

void link_hf_files(const fs::path& checkpoint, const fs::path& directory) {
  const fs::path temporary = making_of(directory);
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    for (const fs::directory_entry& entry : fs::directory_iterator(checkpoint)) {
      check(!entry.is_symlink(), ExitCode::input,
            "{}: a symbolic link in a checkpoint: nothing of ours makes one", entry.path().string());
      if (!entry.is_regular_file() || entry.path().filename() == manifest_name) continue;
      std::error_code error;
      fs::create_hard_link(entry.path(), temporary / entry.path().filename(), error);
      progress::tick();
      if (error) fs::copy_file(entry.path(), temporary / entry.path().filename());
    }
    replace_by_made(directory);
  } catch (const fs::filesystem_error& error) {
    fail(ExitCode::resources, "{}: the model cannot be put there: {}", directory.string(), error.what());
  }
}

}  // namespace ptrain
