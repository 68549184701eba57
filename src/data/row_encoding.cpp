#include "src/data/row_encoding.h"

#include <charconv>

namespace ptrain {

Json parse_row(std::string_view line, std::string_view where) {
  // parse_json counts lines itself: it is told the file and the number apart, so that it says
  // file:line:column.
  const size_t colon = where.rfind(':');
  int number = 1;
  if (colon != std::string_view::npos) {
    std::from_chars(where.data() + colon + 1, where.data() + where.size(), number);
  }
  try {
    return parse_json(line, where.substr(0, colon), number);
  } catch (const Error& error) {
    const std::string_view text = error.what();
    if (text.starts_with(where) || colon == std::string_view::npos) throw;
    fail(error.code(), "{}{}", where, text.substr(std::min(colon, text.size())));  // it named the file alone
  }
}

Encoding row_encoding(const RowEncoder& encoder) {
  Encoding encoding;
  encoding.digest = encoder.digest();
  encoding.begin_file = [&encoder](std::string_view first_line, std::string_view where) {
    const RowShape shape = encoder.shape_of(parse_row(first_line, where), where);
    Encoding::ForFile file;
    file.rows = name_of(shape);
    file.encode = [&encoder, shape](std::string_view line, std::string_view place) {
      return encoder.encode(parse_row(line, place), shape, place);
    };
    return file;
  };
  return encoding;
}

}  // namespace ptrain
