#include "parallel/plan/svg.h"

#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

struct Rectangle {
  std::string title, color;
  double x = 0, y = 0, width = 0;
};

std::vector<Rectangle> rectangles(const std::string& text) {
  static const std::regex pattern(
      R"re(<title>([^<]*)</title><rect x="([0-9.]+)" y="([0-9.]+)" width="([0-9.]+)" height="20" fill="([^"]*)")re");
  std::vector<Rectangle> all;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
    all.push_back({(*it)[1], (*it)[5], std::stod((*it)[2]), std::stod((*it)[3]), std::stod((*it)[4])});
  return all;
}

TEST(SvgPanels, LieBelowEachOtherOnOneTimeScale) {
  const StageMap map(3);
  const Schedule schedule = with_slots(with_transfers(one_f_one_b(map, 4), map), map);
  const Report quick = simulate(schedule, map, Costs::uniform(map, 1, 2));
  const Report slow = simulate(schedule, map, Costs::uniform(map, 3, 6));
  const SvgPanel panels[] = {{"plan", &quick}, {"run & measured", &slow}};
  const std::string text = svg_of_panels(schedule, map, panels);
  EXPECT_TRUE(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
  EXPECT_NE(text.find(">plan<"), std::string::npos);
  EXPECT_NE(text.find(">run &amp; measured<"), std::string::npos);
  const std::vector<Rectangle> bars = rectangles(text);
  const size_t each = 3 * 4 * 2;
  ASSERT_EQ(bars.size(), 2 * each);
  double lowest = 0;
  for (size_t i = 0; i < each; ++i) {
    // Three times as long in the lower one, and shifted as a whole.
    EXPECT_NEAR(bars[each + i].width, 3 * bars[i].width, 0.2);  // printed to 0.1 px
    EXPECT_EQ(bars[each + i].title.substr(0, bars[each + i].title.find(',')),
              bars[i].title.substr(0, bars[i].title.find(',')));
    lowest = std::max(lowest, bars[i].y);
  }
  for (size_t i = each; i < bars.size(); ++i) EXPECT_GT(bars[i].y, lowest + 20);
  // One panel alone is svg_of().
  EXPECT_EQ(svg_of_panels(schedule, map, {panels, 1}), svg_of(schedule, map, quick, "plan"));
}

TEST(SvgPanels, ChunksOfAPositionAreToldApartAndNamedByTheirStages) {
  const StageMap map(2, 2, StageOrder::there_and_back);
  const Schedule schedule = with_slots(with_transfers(zero_bubble_v(map, 3), map), map);
  const std::vector<Rectangle> bars =
      rectangles(svg_of(schedule, map, simulate(schedule, map, Costs::uniform(map, 1, 2)), "v"));
  std::set<std::string> stages, colors;
  for (const Rectangle& bar : bars) {
    stages.insert(bar.title.substr(0, bar.title.find(':')));
    colors.insert(bar.color);
  }
  EXPECT_EQ(stages, (std::set<std::string>{"stage 0", "stage 1", "stage 2", "stage 3"}));
  EXPECT_EQ(colors.size(), 6u) << "forward, input and weights of two chunks";
}

}  // namespace
}  // namespace ptrain
