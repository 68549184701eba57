// Fault points: what is armed happens there and nowhere else.
#include "kernels/base/fault.h"

#include <gtest/gtest.h>

#include <chrono>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

class Fault : public testing::Test {
 protected:
  ~Fault() override { fault::arm("", 0); }
};

TEST_F(Fault, NothingHappensUnlessArmed) {
  fault::point("after_shard", 1);
  EXPECT_FALSE(fault::is_planted("nan", "gradient", 1));
}

TEST_F(Fault, IsPlantedForItsRankStepAndTimeAlone) {
  fault::arm("nan@gradient:rank1:step3,flip@weight:nth2", 1);
  EXPECT_FALSE(fault::is_planted("nan", "gradient", 2));
  EXPECT_TRUE(fault::is_planted("nan", "gradient", 3));
  EXPECT_FALSE(fault::is_planted("inf", "gradient", 3));
  EXPECT_FALSE(fault::is_planted("nan", "loss", 3));
  EXPECT_FALSE(fault::is_planted("flip", "weight", 1));
  EXPECT_TRUE(fault::is_planted("flip", "weight", 1));
  EXPECT_FALSE(fault::is_planted("flip", "weight", 1));
  fault::arm("nan@gradient:rank1:step3", 0);
  EXPECT_FALSE(fault::is_planted("nan", "gradient", 3));
}

using FaultDeathTest = Fault;

TEST_F(FaultDeathTest, KillsAtThePointAndExitsAtAnother) {
  EXPECT_EXIT((fault::arm("kill@after_shard:rank2", 2), fault::point("after_shard")),
              testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT((fault::arm("exit@open:step4", 0), fault::point("open", 4)), testing::ExitedWithCode(1), "");
}

TEST_F(Fault, SlowSleepsAsLongAsItSays) {
  fault::arm("slow50@step", 0);
  const auto begin = std::chrono::steady_clock::now();
  fault::point("step", 1);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(50));
}

TEST_F(Fault, WhatDoesNotReadAsAFaultIsRefused) {
  for (const char* spec : {"kill", "@open", "kill@", "kill@open:first", "kill@open:rankx", "slowly@open"}) {
    EXPECT_THROW(fault::arm(spec, 0), Error) << spec;
  }
}

}  // namespace
}  // namespace ptrain
