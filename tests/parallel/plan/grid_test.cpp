#include <gtest/gtest.h>

#include "parallel/plan/simulate.h"
#include "parallel/plan/svg.h"
#include "tests/support/schedules.h"

namespace ptrain {
namespace {

std::string grid_of(const char* name, int positions, int micros, int columns = 110) {
  const StageMap map = named_schedule(name).map(positions);
  const Schedule schedule = with_transfers(named_schedule(name).make(map, micros), map);
  return grid(schedule, map, simulate(schedule, map, Costs::uniform(map, 1, 2)), columns);
}

TEST(Grid, ShowsHalvesAndSaysWhatTheyAre) {
  EXPECT_EQ(grid_of("zero bubble H1", 2, 3),
            "stage 0   F0 F1    I0 W0 F2 I1 W1 I2 W2\n"
            "stage 1      F0 I0 F1 I1 W0 F2 I2 W1 W2\n"
            "          (I: backward of the input, W: of the weights)\n");
}

TEST(Grid, ShowsTheSecondOfTwoChunksInLowerCaseAndNoHands) {
  EXPECT_EQ(grid_of("zero bubble V", 2, 3),
            "position 0   F0 F1 F2 f0 i0 w0 f1 i1 w1 I0 W0 f2 i2 w2 I1 W1 I2 W2\n"
            "position 1      F0 f0 F1 f1 i0 w0 F2 I0 W0 f2 i1 w1 I1 i2 I2 W1 w2 W2\n"
            "             (upper case: first chunk, lower case: second; I: backward of the input, W: of the "
            "weights)\n");
}

TEST(Grid, NumbersMoreChunks) {
  const std::string text = grid_of("interleaved by 3", 2, 2);
  EXPECT_NE(text.find("F0   F1   F0'1 F1'1 F0'2 F1'2"), std::string::npos) << text;
  EXPECT_NE(text.find("(F3'1: micro-batch 3 in the second chunk)"), std::string::npos) << text;
}

TEST(Grid, NarrowCellsTellKindsAndChunks) {
  const std::string v = grid_of("zero bubble V", 24, 60, 80);
  EXPECT_NE(
      v.find("(0 forward, a backward of the input, A of the weights; 1, b, B and so on: the next chunks)"),
      std::string::npos)
      << v;
  EXPECT_NE(v.find("\nposition 23"), std::string::npos);
  const std::string h1 = grid_of("zero bubble H1", 24, 60, 80);
  EXPECT_NE(h1.find("(0 forward, a backward of the input, A of the weights)"), std::string::npos) << h1;
  const std::string plain = grid_of("1f1b", 24, 60, 80);
  EXPECT_NE(plain.find("(0-9 forward, a-j backward of micro-batches 0-9, 10-19, ... alike)"),
            std::string::npos);
}

TEST(Svg, ExplainsTheColorsThatOccur) {
  const auto picture = [](const char* name) {
    const StageMap map = named_schedule(name).map(2);
    const Schedule schedule = with_transfers(named_schedule(name).make(map, 3), map);
    return svg_of(schedule, map, simulate(schedule, map, Costs::uniform(map, 1, 2)), name);
  };
  const std::string whole = picture("1f1b"), v = picture("zero bubble V");
  EXPECT_NE(whole.find(">backward</text>"), std::string::npos);
  EXPECT_EQ(whole.find("weights"), std::string::npos);
  EXPECT_NE(v.find(">backward of the weights, chunk by chunk</text>"), std::string::npos);
  EXPECT_EQ(v.find(">backward, chunk by chunk<"), std::string::npos);
  EXPECT_NE(v.find("<title>stage 2: W2'1"), std::string::npos);
  EXPECT_EQ(v.find("hand"), std::string::npos);
}

}  // namespace
}  // namespace ptrain
