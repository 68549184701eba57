// ptrain preprocess: text to token documents with masks, by all ranks; shows rows with what is supervised.
#include <cstdio>

#include "kernels/base/log.h"
#include "launch/runtime.h"
#include "launch/verbs.h"
#include "parallel/comm/agree.h"
#include "src/data/show_rows.h"
#include "src/train/run_data.h"

namespace ptrain {
namespace {

void show_rows(const DatasetOptions& options, const TextEncoder& encoder, int64_t count) {
  for (const ShownDocument& shown : first_documents(options, encoder.encoding(), count)) {
    fmt::print("{}", show(shown, encoder.tokenizer.get()));
  }
  std::fflush(stdout);
}

int preprocess_files(Runtime& runtime, const Config& config) {
  const std::string out = runtime.arguments.value("out");
  const int64_t rows_shown = runtime.arguments.integer("show", 0, 0);
  BaseModel base;
  std::optional<TextEncoder> encoder;
  agreed(runtime.world, [&] {
    base = read_base_model(config);
    encoder.emplace(config.model.path, base, config.data.mask_prompt);
  });
  DatasetOptions options{.files = config.data.train,
                         .key = "data.train",
                         .vocabulary_size = base.spec.V,
                         .cache_directory = {},
                         .threads = runtime.context.threads};
  if (!out.empty()) {
    const std::filesystem::path directory = std::filesystem::absolute(out).parent_path();
    const FoundStorage found =
        find_storage(runtime.world, runtime.session.hosts(), StorageWish::automatic, "--out", directory);
    const TokenTotals totals = preprocess(options, encoder->encoding(), out, found.storage);
    if (runtime.is_first()) {
      log::info("{}: {} documents, {} tokens, {} of them supervised", out, totals.documents, totals.tokens,
                totals.supervised);
    }
    options.files = {out};
  }
  agreed(runtime.world, [&] {
    if (rows_shown > 0 && runtime.is_first()) show_rows(options, *encoder, rows_shown);
  });
  return 0;
}

}  // namespace

int run_preprocess(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, {"model.path", "data.train"});
  const std::string out = arguments.value("out");
  check(!out.empty() || arguments.has("show"), ExitCode::usage,
        "preprocess: name the file to write with --out FILE.h5, or the number of rows to look at with --show "
        "N");
  arguments.integer("show", 0, 0);
  check(out.empty() || out.ends_with(".h5"), ExitCode::usage,
        "--out {}: the name must end in .h5, by which data.train knows such files", out);
  return run_on_ranks(arguments, loaded.config.log.level,
                      [&](Runtime& runtime) { return preprocess_files(runtime, loaded.config); });
}

}  // namespace ptrain
