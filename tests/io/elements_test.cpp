#include "src/io/elements.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace ptrain {
namespace {

double value_of(uint16_t bits, DType dtype) {
  double value = 0;
  convert_elements(&bits, dtype, &value, DType::f64, 1);
  return value;
}

TEST(Elements, AllSixteenBitValuesSurviveTheWayThroughWiderTypes) {
  for (const DType narrow : {DType::bf16, DType::f16}) {
    for (const DType wide : {DType::f32, DType::f64}) {
      for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
        const auto bits = static_cast<uint16_t>(pattern);
        const double value = value_of(bits, narrow);
        char middle[8];
        uint16_t back = 0;
        convert_elements(&bits, narrow, middle, wide, 1);
        convert_elements(middle, wide, &back, narrow, 1);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(value_of(back, narrow))) << pattern;
        } else {
          ASSERT_EQ(back, bits) << name_of(narrow) << " through " << name_of(wide);
        }
      }
    }
  }
}

TEST(Elements, WiderValuesGoToTheNearestAndTiesToTheEvenOne) {
  for (const DType narrow : {DType::bf16, DType::f16}) {
    const uint32_t infinity = narrow == DType::bf16 ? 0x7f80 : 0x7c00;
    for (uint32_t pattern = 0; pattern + 1 < infinity; ++pattern) {
      const double low = value_of(static_cast<uint16_t>(pattern), narrow);
      const double high = value_of(static_cast<uint16_t>(pattern + 1), narrow);
      const double middle = (low + high) / 2;
      const uint32_t even = pattern % 2 == 0 ? pattern : pattern + 1;
      // A double just beside the middle is one in f32 already: only rounding once sees which side it is on.
      for (const auto& [value, expected] : {std::pair{middle, even},
                                            {std::nextafter(middle, low), pattern},
                                            {std::nextafter(middle, high), pattern + 1},
                                            {-std::nextafter(middle, high), (pattern + 1) | 0x8000u}}) {
        uint16_t found = 0;
        convert_elements(&value, DType::f64, &found, narrow, 1);
        ASSERT_EQ(found, expected) << name_of(narrow) << " of " << value;
      }
      const auto single = static_cast<float>(middle);
      if (static_cast<double>(single) == middle) {
        uint16_t found = 0;
        convert_elements(&single, DType::f32, &found, narrow, 1);
        ASSERT_EQ(found, even);
      }
    }
  }
}

TEST(Elements, ValuesBeyondTheRangeBecomeInfinite) {
  for (const DType narrow : {DType::bf16, DType::f16}) {
    for (const float value : {3.4e38f, std::numeric_limits<float>::infinity(), 65520.0f}) {
      uint16_t bits = 0;
      convert_elements(&value, DType::f32, &bits, narrow, 1);
      const bool is_in_range = narrow == DType::bf16 && value < 3.39e38f;
      EXPECT_EQ(std::isinf(value_of(bits, narrow)), !is_in_range) << value;
    }
  }
}

TEST(Elements, EqualTypesAreCopiedAndOthersRefusedByName) {
  const std::vector<int64_t> source = {1, -2, 3};
  std::vector<int64_t> destination(3);
  convert_elements(source.data(), DType::i64, destination.data(), DType::i64, 3);
  EXPECT_EQ(destination, source);
  try {
    convert_elements(source.data(), DType::i64, destination.data(), DType::f32, 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find("i64 cannot be turned into f32"), std::string::npos);
  }
}

}  // namespace
}  // namespace ptrain
