// Models that cannot be trained, from outside: the exit code and one message, by a rank of its own and by
// four.
#include "tests/launch/wrong_configuration.h"

namespace ptrain {
namespace {

const WrongConfiguration table[] = {
    {"no such model",
     nullptr,
     {"--model.path", "/no/such/model"},
     3,
     {"model.path: /no/such/model is not a directory; give a Hugging Face directory (config.json, "
      "*.safetensors)"}},
    {"no config.json",
     [](const TinyRun& run) { std::filesystem::remove(run.model() / "config.json"); },
     {},
     3,
     {"{root}/model/config.json: no such file"}},
    {"a broken config.json",
     [](const TinyRun& run) { put(run.model() / "config.json", "{\n \"vocab_size\": ,\n}"); },
     {},
     3,
     {"{root}/model/config.json:2:16: not valid JSON"},
     {1}},
    {"an unknown architecture",
     [](const TinyRun& run) { run.set("model_type", "mamba"); },
     {},
     3,
     {"{root}/model/config.json: model_type \"mamba\"", "is not supported; possible are llama"}},
    {"a size that is no number",
     [](const TinyRun& run) { run.set("hidden_size", "48"); },
     {},
     3,
     {"{root}/model/config.json: \"hidden_size\" is a string, expected an integer"},
     {1}},
    {"a size that is absurd",
     [](const TinyRun& run) { run.set("num_hidden_layers", 4'000'000'000'000); },
     {},
     3,
     {"{root}/model/config.json: \"num_hidden_layers\" is 4000000000000, expected a positive number below "
      "2^31"},
     {1}},
    {"no weights",
     [](const TinyRun& run) { std::filesystem::remove(run.model() / "model.safetensors"); },
     {},
     3,
     {"{root}/model: there are no weights: neither model.safetensors nor model.safetensors.index.json is "
      "there"}},
    {"a pickle",
     [](const TinyRun& run) { rename_weights(run, "pytorch_model.bin"); },
     {},
     3,
     {"{root}/model: its weights are in pytorch_model.bin, a pickle, which can run code when it is opened "
      "and is therefore never read: convert it to safetensors"}},
    {"truncated weights",
     cut_weights,
     {},
     3,
     {"{root}/model/model.safetensors: tensor ", "bytes of data: is it truncated?"}},
    {"overlapping weights",
     overlap_tensors,
     {},
     3,
     {"{root}/model/model.safetensors: tensor \"model.layers.0.mlp.up_proj.weight\" overlaps the one before "
      "it"}},
    {"a header longer than the file",
     huge_header,
     {},
     3,
     {"{root}/model/model.safetensors: its header would be ", "is it a safetensors file?"},
     {1}},
    {"weights of integers",
     quantise,
     {},
     3,
     {"is not of a floating-point type: model.norm.weight is i32; take the model as it was before it was "
      "quantised"},
     {1}},
    {"an index that leaves the directory",
     index_to_outside,
     {},
     3,
     {"weight_map sends \"model.norm.weight\" to \"../evil.safetensors\", which is no plain file name: files "
      "lie in the directory itself"}},
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
     {"{root}/model/model.safetensors: is a symbolic link out of its directory",
      "put the file itself there, or a hard link"},
     {1}},
    {"another width than config.json's",
     [](const TinyRun& run) { run.set("intermediate_size", 96); },
     {},
     3,
     {"12 tensors are of another shape than config.json asks for: model.layers.0.mlp.gate_proj.weight is "
      "(104, 48), not (96, 48)",
      "config.json and the weights are of two models"}},
    {"fewer layers than config.json's",
     [](const TinyRun& run) { run.set("num_hidden_layers", 5); },
     {},
     3,
     {"9 tensors are missing in the safetensors files: model.layers.4.input_layernorm.weight",
      "a file was left out, or config.json is of another model"},
     {1}},
};

TEST(BadModel, EachEndsWithItsCodeAndOneMessageOnOneRankAndOnFour) {
  expect_rows(table);
}

TEST(BadModel, ThePageHasTheseRows) {
  EXPECT_GE(std::size(table), 15u);
  expect_on_page("models", table);
}

}  // namespace
}  // namespace ptrain
