#include "src/data/row_encoding.h"

#include "src/io/json.h"

namespace ptrain {

Json parse_row(std::string_view line, std::string_view where) {
  return parse_json(line, where, 0);  // `where` names the line already; a fault's column follows
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
