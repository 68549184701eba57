// What users get wrong, from outside: the exit code, and one message that says what, where and what to do;
// by a rank of its own and by four.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/launch/broken_run.h"

namespace ptrain {
namespace {

using Break = void (*)(const TinyRun&);

struct Wrong {
  const char* what;
  Break breaks;                    // may be null
  std::vector<std::string> words;  // behind the configuration
  int code;
  std::vector<std::string> says;  // fragments of stderr, each once; {root} stands for the test's directory
  std::vector<int> ranks = {1, 4};
  const char* verb = "";
};

// --- The table
// -------------------------------------------------------------------------------------------------

const Wrong table[] = {
    {"no such configuration",
     [](const TinyRun& run) { std::filesystem::remove(run.config()); },
     {},
     2,
     {"{root}/c.yaml"}},
    {"an unknown key",
     add_keys<unknown_key>,
     {},
     2,
     {"{root}/c.yaml:6:19: unknown key batch.globl; did you mean batch.global?"}},
    {"a duplicate key",
     add_keys<duplicate_key>,
     {},
     2,
     {"{root}/c.yaml:8:1: the key \"batch\" appears twice, first in line 6"}},
    {"a mistyped value",
     add_keys<mistyped>,
     {},
     2,
     {"{root}/c.yaml:6:17: batch.global must be an integer of at least 1, not \"many\""},
     {1}},
    {"no YAML", add_keys<open_bracket>, {}, 2, {"{root}/c.yaml:7:1: not valid YAML"}, {1}},
    {"an unknown override", nullptr, {"--batch.globl", "6"}, 2, {"--batch.globl", "did you mean"}, {1}},
    {"a mistyped override",
     nullptr,
     {"--batch.global=six"},
     2,
     {"--batch.global: batch.global must be an integer of at least 1, not \"six\""}},
    {"a mesh that is not the world",
     nullptr,
     {"--parallel.tensor", "3", "--parallel.pipeline", "2", "--parallel.data", "2"},
     2,
     {"tensor * pipeline * data = 3 * 2 * 2 = 12, but mpirun started 4 ranks"},
     {4}},
    {"a mesh that does not divide the world",
     nullptr,
     {"--parallel.tensor", "3", "--batch.global", "6"},
     2,
     {"tensor * pipeline = 3 * 1 = 3 does not divide the world"}},
    {"a global batch that is no multiple",
     nullptr,
     {"--batch.micro", "4", "--batch.global", "18"},
     2,
     {"global = 18 is not a multiple of micro * data"}},
    {"heads that tensor does not divide",
     nullptr,
     {"--parallel.tensor", "4", "--batch.global", "6"},
     2,
     {"the model has 6 attention heads, which parallel.tensor = 4 does not divide; set it to 1, 2, 3 or 6"},
     {4}},
    {"more stages than layers",
     [](const TinyRun& run) { run.set("num_hidden_layers", 3); },
     {"--parallel.pipeline", "4", "--batch.global", "6"},
     2,
     {"4 stages, but the model has 3 blocks", "set parallel.pipeline to at most 3"},
     {4}},
    {"more stages than layers, planned",
     nullptr,
     {"--ranks", "5", "--parallel.pipeline", "5"},
     2,
     {"5 stages, but the model has 4 blocks", "set parallel.pipeline to at most 4"},
     {1},
     "check"},
    {"a row longer than the model's positions",
     nullptr,
     {"--data.sequence_length", "4096"},
     2,
     {"data.sequence_length = 4096, but the model has 128 positions"}},
    {"CUDA where there is none", nullptr, {"--device", "cuda"}, PTRAIN_CUDA_EXIT, {"device: cuda, but "}},
    {"a schedule that goes with no shards of gradients",
     nullptr,
     {"--parallel.schedule", "zero_bubble", "--parallel.zero", "2"},
     2,
     {"parallel.zero", "set it to 1, or parallel.schedule to 1f1b"},
     {1}},

    {"no such model", nullptr, {"--model.path", "/no/such/model"}, 3, {"/no/such/model is not a directory"}},
    {"no config.json",
     [](const TinyRun& run) { std::filesystem::remove(run.model() / "config.json"); },
     {},
     3,
     {"{root}/model/config.json"}},
    {"a broken config.json",
     [](const TinyRun& run) { put(run.model() / "config.json", "{\n \"vocab_size\": ,\n}"); },
     {},
     3,
     {"{root}/model/config.json:2:"},
     {1}},
    {"an unknown architecture",
     [](const TinyRun& run) { run.set("model_type", "mamba"); },
     {},
     3,
     {"{root}/model/config.json: model_type \"mamba\"", "possible are llama"}},
    {"a size that is no number",
     [](const TinyRun& run) { run.set("hidden_size", "48"); },
     {},
     3,
     {"{root}/model/config.json: \"hidden_size\""},
     {1}},
    {"a size that is absurd",
     [](const TinyRun& run) { run.set("num_hidden_layers", 4'000'000'000'000); },
     {},
     3,
     {"num_hidden_layers"},
     {1}},
    {"no weights",
     [](const TinyRun& run) { std::filesystem::remove(run.model() / "model.safetensors"); },
     {},
     3,
     {"{root}/model: there are no weights"}},
    {"a pickle",
     [](const TinyRun& run) { rename_weights(run, "pytorch_model.bin"); },
     {},
     3,
     {"pytorch_model.bin, a pickle", "convert it to safetensors"}},
    {"truncated weights", cut_weights, {}, 3, {"{root}/model/model.safetensors"}},
    {"overlapping weights", overlap_tensors, {}, 3, {"{root}/model/model.safetensors"}},
    {"a header longer than the file", huge_header, {}, 3, {"{root}/model/model.safetensors"}, {1}},
    {"weights of integers", quantise, {}, 3, {"model.norm.weight is i32", "quantised"}, {1}},
    {"an index that leaves the directory",
     index_to_outside,
     {},
     3,
     {"weight_map sends \"model.norm.weight\" to \"../evil.safetensors\""}},
    {"an index to a file that is missing",
     index_to_nowhere,
     {},
     3,
     {"model-00002-of-00002.safetensors is missing"},
     {1}},
    {"weights that are a link out of the directory",
     link_to_outside,
     {},
     3,
     {"is a symbolic link out of"},
     {1}},
    {"another width than config.json's",
     [](const TinyRun& run) { run.set("intermediate_size", 96); },
     {},
     3,
     {"12 tensors are of another shape", "model.layers.0.mlp.gate_proj.weight is (104, 48), not (96, 48)"}},
    {"fewer layers than config.json's",
     [](const TinyRun& run) { run.set("num_hidden_layers", 5); },
     {},
     3,
     {"9 tensors are missing in the safetensors files: model.layers.4.input_layernorm.weight"},
     {1}},

    {"no such data",
     nullptr,
     {"--data.train", "/no/such/*.jsonl"},
     3,
     {"data.train: no file matches /no/such/*.jsonl"}},
    {"an empty file", replace_rows<nothing>, {}, 3, {"data.train", "no rows"}},
    {"a file of blank lines", replace_rows<blanks>, {}, 3, {"data.train", "no rows"}, {1}},
    {"rows without tokens", replace_rows<no_tokens>, {}, 3, {"the data holds no rows to train on"}},
    {"a broken line", add_row<no_json>, {}, 3, {"{root}/train.jsonl:121:20: not valid JSON"}},
    {"a line of another shape", add_row<other_shape>, {}, 3, {"{root}/train.jsonl:121: "}},
    {"a line of no shape", add_row<no_shape>, {}, 3, {"{root}/train.jsonl:121: "}, {1}},
    {"a line that is no object", add_row<a_list>, {}, 3, {"{root}/train.jsonl:121: "}, {1}},
    {"an id above the vocabulary",
     add_row<high_id>,
     {},
     3,
     {"{root}/train.jsonl:121: input_ids[1] is 199, outside of the vocabulary of 199"}},
    {"an id below 0", add_row<negative_id>, {}, 3, {"{root}/train.jsonl:121: ", "-7"}, {1}},
    {"an id above 64 bits", add_row<huge_id>, {}, 3, {"{root}/train.jsonl:121: "}, {1}},
    {"fewer labels than ids", add_row<fewer_labels>, {}, 3, {"{root}/train.jsonl:121: "}, {1}},
    {"text without a tokenizer",
     [](const TinyRun& run) { put(run.rows(), "{\"text\": \"a\"}\n"); },
     {},
     3,
     {"{root}/train.jsonl:1: a row of text needs a tokenizer"}},
    {"tokens that are no HDF5",
     [](const TinyRun& run) { put(run.root() / "a.h5", "no"); },
     {"--data.train", "{root}/a.h5"},
     3,
     {"{root}/a.h5"},
     {1}},
    {"broken validation",
     [](const TinyRun& run) { put(run.root() / "v.jsonl", "{\"input_ids\": [1, 2\n"); },
     {"--data.validation", "{root}/v.jsonl"},
     3,
     {"{root}/v.jsonl:1:"}},

    {"an output that cannot be",
     nullptr,
     {"--output", "/proc/no/out"},
     4,
     {"output: /proc/no/out cannot be made"}},
    {"an output that is a file",
     nullptr,
     {"--output", "{root}/train.jsonl"},
     4,
     {"output: {root}/train.jsonl"},
     {1}},
    {"an empty checkpoint",
     [](const TinyRun& run) {
       std::filesystem::create_directories(run.output() / "checkpoints/step-00000003");
     },
     {},
     65,
     {"there are checkpoints, but none is whole"}},
    {"eval of a pickle",
     [](const TinyRun& run) { rename_weights(run, "model.bin"); },
     {},
     3,
     {"model.bin, a pickle"},
     {1, 2},
     "eval"},
    {"eval of an id above the vocabulary",
     add_row<high_id>,
     {},
     3,
     {"{root}/train.jsonl:121: "},
     {1, 2},
     "eval"},
    {"eval of another width",
     [](const TinyRun& run) { run.set("intermediate_size", 96); },
     {},
     3,
     {"12 tensors are of another shape"},
     {1, 2},
     "eval"},
    {"generate without a tokenizer", nullptr, {"--prompt", "a"}, 3, {"{root}/model"}, {1, 2}, "generate"},
    {"generate from truncated weights",
     cut_weights,
     {"--prompt", "a"},
     3,
     {"{root}/model/model.safetensors"},
     {1, 2},
     "generate"},
    {"generate with CUDA",
     nullptr,
     {"--prompt", "a", "--device", "cuda"},
     PTRAIN_CUDA_EXIT,
     {"device: cuda, but "},
     {1},
     "generate"},
    {"generate on ranks that the heads do not allow",
     nullptr,
     {"--prompt", "a"},
     2,
     {"6 attention heads, which 4 ranks do not divide"},
     {4},
     "generate"},
    {"preprocess for no model",
     nullptr,
     {"--out", "{root}/a.h5", "--model", "/no/such/model"},
     3,
     {"/no/such/model is not a directory"},
     {1, 2},
     "preprocess"},
    {"preprocess of a broken line",
     add_row<no_json>,
     {"--out", "{root}/a.h5"},
     3,
     {"{root}/train.jsonl:121:20: not valid JSON"},
     {1, 2},
     "preprocess"},
    {"check of a broken line",
     add_row<no_json>,
     {},
     3,
     {"{root}/train.jsonl:121:20: not valid JSON"},
     {1, 4},
     "check"},
    {"check of truncated weights",
     cut_weights,
     {"--no-data"},
     3,
     {"{root}/model/model.safetensors"},
     {1},
     "check"},
};

std::string with_root(std::string text, const TinyRun& run) {
  const size_t at = text.find("{root}");
  return at == std::string::npos ? text : text.replace(at, 6, run.root().string());
}

std::vector<std::string> words_of(const Wrong& wrong, const TinyRun& run) {
  std::vector<std::string> words;
  if (wrong.verb == std::string("eval")) {
    words = {"eval", "--model", run.model(), "--data", run.rows()};
  } else if (wrong.verb == std::string("generate")) {
    words = {"generate", "--model", run.model()};
  } else if (*wrong.verb != '\0') {
    words = {wrong.verb, run.config()};
  } else {
    words = {run.config()};
  }
  for (const std::string& word : wrong.words) words.push_back(with_root(word, run));
  return words;
}

TEST(BadInput, EachEndsWithItsCodeAndOneMessageOnOneRankAndOnFour) {
  double slowest = 0;
  for (const Wrong& wrong : table) {
    for (int ranks : wrong.ranks) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", wrong.what, ranks));
      const TinyRun run;
      if (wrong.breaks != nullptr) wrong.breaks(run);
      const ProgramResult result = ptrain_on(ranks, words_of(wrong, run));
      EXPECT_EQ(result.code, wrong.code) << result.err;
      EXPECT_EQ(times_in("error: ", result.err), 1) << result.err;
      for (const std::string& text : wrong.says)
        EXPECT_EQ(times_in(with_root(text, run), result.err), 1) << text << "\n" << result.err;
      EXPECT_EQ(result.out.find("step 1/"), std::string::npos) << "it trained: " << result.out;
      EXPECT_EQ(processes_naming(run.root()), 0) << "ranks are left behind";
      if (ranks == 1) slowest = std::max(slowest, result.seconds);
      if (HasFailure()) std::printf("  %s, %d ranks: %.2f s\n", wrong.what, ranks, result.seconds);
    }
  }
  std::printf("the slowest of the single ranks took %.2f s\n", slowest);
}

}  // namespace
}  // namespace ptrain
