// What JSON of others may hold: what is refused that the library beneath takes.
#include "src/io/json.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"

namespace ptrain {
namespace {

std::string object_of(int names, const std::string& last) {
  std::string text = "{";
  for (int i = 0; i < names; ++i) text += fmt::format("\"n{}\": {{\"n0\": {}}}, ", i, i);
  return text + fmt::format("\"{}\": 7}}", last);
}

TEST(Json, ANameTwiceInOneObjectIsRefusedHoweverManyThereAre) {
  for (const int names : {1, 2, 11, 12, 13, 14, 200}) {
    EXPECT_EQ(parse_json(object_of(names, "more"), "x").size(), static_cast<size_t>(names) + 1);
    for (const int twice : {0, names / 2, names - 1}) {
      const std::string name = fmt::format("n{}", twice);
      EXPECT_EQ(message_of([&] { parse_json(object_of(names, name), "x"); }),
                fmt::format("x: the name \"{}\" appears twice in one object", name));
    }
  }
}

}  // namespace
}  // namespace ptrain
