// ptrain eval: the loss of a model on a file, as one JSON object; with --logits what the model says of every
// token.
#include <cmath>

#include "launch/runtime.h"
#include "launch/verbs.h"
#include "src/io/json.h"
#include "src/io/safetensors.h"
#include "src/train/evaluate.h"

namespace ptrain {

int run_eval(const Arguments& arguments) {
  LoadedConfig loaded = load_config(arguments, {"model.path", "data.train"});
  return run_on_ranks(arguments, loaded.config, [&](Runtime& runtime) {
    const std::string logits = arguments.value("logits");
    const EvaluationReport report = evaluate_files(loaded, runtime.world, runtime.device, logits);
    if (!runtime.is_first()) return 0;
    const double loss = report.evaluation.loss;
    const bool has_loss = std::isfinite(loss);
    const Json result = {{"loss", has_loss ? Json(loss) : Json(nullptr)},
                         {"perplexity", has_loss ? Json(std::exp(loss)) : Json(nullptr)},
                         {"supervised_tokens", report.evaluation.supervised_tokens},
                         {"tokens", report.evaluation.tokens},
                         {"rows", report.rows}};
    fmt::print("{}\n", result.dump());
    return 0;
  });
}

}  // namespace ptrain
