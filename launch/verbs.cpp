#include "launch/verbs.h"

namespace ptrain {

std::span<const Verb> verbs() {
  static const std::vector<Verb> table = {
      {.name = "train",
       .summary = "trains; run again with the same command, it resumes",
       .usage = "CONFIG [--key value ...]",
       .takes = Takes::file,
       .run = run_train},
      {.name = "config-schema",
       .summary = "JSON Schema of every configuration key, with defaults and units",
       .run = run_config_schema},
      {.name = "generate",
       .summary = "text from a model, as it comes",
       .usage = "--model DIR --prompt TEXT",
       .takes = Takes::keys,
       .flags = {{.name = "prompt", .value = "TEXT", .help = "what the model continues"},
                 {.name = "chat", .help = "render the prompt as a user's turn by the model's chat template"},
                 {.name = "max-new-tokens", .value = "N", .help = "at most this many (128)"},
                 {.name = "temperature", .value = "X", .help = "0 = greedy (the default)"},
                 {.name = "top-k", .value = "K", .help = "sample among the K likeliest; 0 = all"},
                 {.name = "top-p", .value = "P", .help = "sample among the likeliest that sum to P (1)"},
                 {.name = "ids", .help = "print the new tokens' ids, separated by blanks"}},
       .details =
           "On several ranks the model is cut over all of them (tensor parallel). --seed fixes the draws.",
       .run = run_generate},
      {.name = "import",
       .summary = "a GGUF file to a Hugging Face directory",
       .usage = "SOURCE DIR [--dtype TYPE]",
       .min_words = 2,
       .max_words = 2,
       .flags = {{.name = "dtype", .value = "TYPE", .help = "of the weights: f32 (the default), bf16, f16"}},
       .details = "Reads F32, F16, BF16, Q8_0, Q4_0 and Q4_1; rebuilds the tokenizer and the chat template.",
       .run = run_import},
      {.name = "tokenize",
       .summary = "a line of ids for each line of text",
       .usage = "--model DIR [FILE]",
       .max_words = 1,
       .flags =
           {{.name = "model", .value = "DIR", .help = "a directory with tokenizer.json or tokenizer.model"},
            {.name = "no-special", .help = "add no BOS and EOS; with --decode, leave no special token out"},
            {.name = "decode", .help = "ids to text"}},
       .details =
           "Of a .jsonl file: a JSON array of ids for each row's \"text\". Without FILE, standard input.",
       .run = run_tokenize},
      {.name = "preprocess",
       .summary = "text to token documents with masks, by all ranks",
       .usage = "CONFIG --out FILE.h5 [--show N]",
       .takes = Takes::file_keys,
       .flags = {{.name = "out", .value = "FILE", .help = "the token file to write; data.train takes it"},
                 {.name = "show", .value = "N", .help = "print N rows: + is supervised, . is only read"}},
       .run = run_preprocess},
      {.name = "help",
       .summary = "this page, or a verb's",
       .usage = "[VERB]",
       .max_words = 1,
       .run = run_help},
      {.name = "version", .summary = "version, git revision and what is built in", .run = run_version},
  };
  return table;
}

}  // namespace ptrain
