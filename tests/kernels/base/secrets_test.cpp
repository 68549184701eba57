// What nobody shall read is not shown.
#include "kernels/base/secrets.h"

#include <gtest/gtest.h>

namespace ptrain {
namespace {

TEST(Secrets, HiddenValuesAreMaskedWhereverTheyStand) {
  hide_secrets({"hf_abcdef", "hf_abcdefghij", "short"});
  EXPECT_EQ(without_secrets("token hf_abcdefghij, hf_abcdef; hf_abc"), "token ***, ***; hf_abc");
  EXPECT_EQ(without_secrets("short words stay"), "short words stay");
  hide_secrets({});
  EXPECT_EQ(without_secrets("token hf_abcdef"), "token hf_abcdef");
}

TEST(Secrets, KeysThatOtherProgramsSayAreMasked) {
  const struct {
    const char* said;
    const char* shown;
  } rows[] = {
      {"AccessDenied for AKIAIOSFODNN7EXAMPLE: no", "AccessDenied for ***: no"},
      {"ASIAIOSFODNN7EXAMPLE", "***"},
      {"AKIA is no key, nor is AKIA7", "AKIA is no key, nor is AKIA7"},
      {"GET https://b.s3.amazonaws.com/k?X-Amz-Signature=0123abc&x=1",
       "GET https://b.s3.amazonaws.com/k?X-Amz-Signature=***&x=1"},
      {"X-Amz-Security-Token=IQoJb3JpZ2lu", "X-Amz-Security-Token=***"},
      {"X-Amz-Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1 failed", "X-Amz-Credential=*** failed"},
      {"", ""},
  };
  for (const auto& row : rows) EXPECT_EQ(without_secrets(row.said), row.shown);
}

}  // namespace
}  // namespace ptrain
