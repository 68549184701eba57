// Which variables of the environment hold secrets. Not for hiding them: that is hide_secrets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "launch/cli.h"

namespace ptrain {

/// By its name: a word of it (between underscores) is TOKEN, SECRET, PASSWORD or PASSWD, or its last one is
/// KEY. AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, HF_TOKEN are; AWS_REGION is not.
bool is_secret(std::string_view variable);

/// The values of all of them.
std::vector<std::string> secrets_of(const Environment& environment);

}  // namespace ptrain
