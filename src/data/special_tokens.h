// The file of data.special_tokens, {"tokens": ["[SEP]", "[STOP]"]}: tokens that a tokenizer shall have. What
// becomes of them is the tokenizer's.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ptrain {

/// In the file's order. Errors: ExitCode::input: no such file, another key, no list of strings, one that is
/// empty or there twice.
std::vector<std::string> read_special_tokens(const std::filesystem::path& path);

}  // namespace ptrain
