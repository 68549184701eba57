// The two halves of the table of filters; builtins.h is what others call.
#pragma once

#include <string_view>
#include <unordered_map>

#include "src/data/chat_template/builtins.h"

namespace ptrain::jinja {

using Filter = Value (*)(Machine&, const Value& input, const Arguments&);
using FilterTable = std::unordered_map<std::string_view, Filter>;

const FilterTable& text_filters();      // text and numbers
const FilterTable& sequence_filters();  // lists and dicts

}  // namespace ptrain::jinja
