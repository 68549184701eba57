// The rows of a model's text as an Encoding: JSON, one shape a file, tokens and labels.
// Not for what the shapes are (rows.h) nor for files (dataset.h).
#pragma once

#include "src/data/dataset.h"
#include "src/data/rows.h"
#include "src/io/json_fwd.h"

namespace ptrain {

/// Lines are JSON rows that `encoder` encodes; it must outlive the encoding. All rows of a file have the
/// shape of its first one. Errors of the functions: ExitCode::input with file:line, and the column for broken
/// JSON.
Encoding row_encoding(const RowEncoder& encoder);

/// A line of a .jsonl as JSON. `where` is its file:line.
Json parse_row(std::string_view line, std::string_view where);

}  // namespace ptrain
