// Documents for people: which tokens the model learns to say and which it only reads.
// Not a format for programs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/data/dataset.h"
#include "src/data/tokenizer/tokenizer.h"

namespace ptrain {

struct ShownDocument {
  Document document;
  std::string where;  // "data/train.jsonl:12"
};

/// The first `count` documents of the files; no more of them is read than that takes. Does not communicate.
/// Errors: as open_dataset.
std::vector<ShownDocument> first_documents(const DatasetOptions& options, const Encoding& encoding,
                                           int64_t count);

/// A line with counts, then a line for each stretch of tokens: "+" supervised, "." only read, "*" supervised
/// with labels of their own, followed by its text in JSON's quotes, or its ids where there is no tokenizer.
///
///   data/train.jsonl:1: 6 tokens, 2 supervised
///     . "Two and two? "
///     + "Four</s>"
std::string show(const ShownDocument& shown, const Tokenizer* tokenizer);

}  // namespace ptrain
