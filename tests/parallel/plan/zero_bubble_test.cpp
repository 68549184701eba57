// The interleaved and the zero-bubble schedules one by one, their hands, and the faults that only they can
// have.
#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "kernels/base/error.h"
#include "parallel/plan/simulate.h"

namespace ptrain {
namespace {

using enum ActionKind;

std::string text_of(const std::vector<Action>& program) {
  std::string text;
  for (const Action& action : program) text += (text.empty() ? "" : ", ") + to_string(action);
  return text;
}

Costs thirds(const StageMap& map, double forward_s = 1) {
  return Costs::uniform(map, forward_s, 2 * forward_s);  // halves of one length, and that of a forward
}

TEST(Interleaved, GoesThroughItsChunksInGroupsOfTheLastOneSmaller) {
  const Schedule schedule = interleaved(StageMap(2, 2), 3);
  EXPECT_EQ(text_of(schedule.programs[0]), "F0, F1, F0'1, F1'1, F2, B0'1, B1'1, F2'1, B0, B1, B2'1, B2");
  EXPECT_EQ(text_of(schedule.programs[1]), "F0, F1, F0'1, B0'1, F1'1, B1'1, F2, B0, B1, F2'1, B2'1, B2");
}

TEST(Interleaved, WithOneChunkIs1f1b) {
  EXPECT_EQ(interleaved(StageMap(3), 7).programs, one_f_one_b(StageMap(3), 7).programs);
}

TEST(Interleaved, HasItsBubbleWherePositionsDivideMicros) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 2; v <= 4; ++v) {
      for (int groups : {1, 2, 3, 7}) {
        const StageMap map(p, v);
        for (double backward_s : {1.0, 2.0, 3.0}) {
          const Schedule schedule = with_transfers(interleaved(map, groups * p), map);
          const Report report = simulate(schedule, map, Costs::uniform(map, 1, backward_s));
          EXPECT_NEAR(report.bubble, interleaved_bubble(p, groups * p, v), 1e-12)
              << p << " " << v << " " << groups;
        }
      }
    }
  }
}

TEST(Interleaved, ASmallerLastGroupCostsNoMoreThanAFullOne) {
  for (int p = 2; p <= 6; ++p) {
    for (int m = 1; m <= 4 * p; ++m) {
      const StageMap map(p, 3);
      const int full = (m + p - 1) / p * p;
      const double step_s = simulate(with_transfers(interleaved(map, m), map), map, thirds(map)).step_s;
      EXPECT_LE(step_s, simulate(with_transfers(interleaved(map, full), map), map, thirds(map)).step_s);
    }
  }
}

TEST(ZeroBubbleH1, PutsTheWeightsOffByItsPosition) {
  const Schedule schedule = zero_bubble_h1(StageMap(3), 4);
  EXPECT_EQ(text_of(schedule.programs[0]), "F0, F1, F2, I0, W0, F3, I1, W1, I2, W2, I3, W3");
  EXPECT_EQ(text_of(schedule.programs[1]), "F0, F1, I0, F2, I1, W0, F3, I2, W1, I3, W2, W3");
  EXPECT_EQ(text_of(schedule.programs[2]), "F0, I0, F1, I1, F2, I2, W0, F3, I3, W1, W2, W3");
}

TEST(ZeroBubbleH1, HasAThirdOf1f1bsBubbleAndItsMemory) {
  for (int p = 1; p <= 16; ++p) {
    for (int m = p; m <= 4 * p; ++m) {
      const StageMap map(p);
      const Report report = simulate(with_transfers(zero_bubble_h1(map, m), map), map, thirds(map));
      EXPECT_NEAR(report.bubble, zero_bubble_h1_bubble(p, m), 1e-12) << p << " " << m;
      for (const std::vector<int>& live : report.peak_live) EXPECT_EQ(live[0], p);
    }
    for (int m = 1; m < p; ++m) {  // fewer micros than positions: the way of the last one there and back
      const StageMap map(p);
      const Report report = simulate(with_transfers(zero_bubble_h1(map, m), map), map, thirds(map));
      EXPECT_DOUBLE_EQ(report.step_s, 2 * m + 2 * p - 1);
    }
  }
}

TEST(ZeroBubbleH1, HasItsBubbleForHalvesOfAnyLength) {
  for (const auto& [forward_s, input_s, weights_s] :
       {std::tuple(1.0, 1.5, 0.5), {1.0, 0.5, 1.5}, {2.0, 2.5, 1.75}, {1.0, 1.25, 1.0}}) {
    for (int p = 1; p <= 9; ++p) {
      for (int m : {p, p + 1, 2 * p, 5 * p}) {
        const StageMap map(p);
        Costs costs = Costs::uniform(map, forward_s, input_s + weights_s);
        costs.input_share.assign(static_cast<size_t>(p), input_s / (input_s + weights_s));
        const Report report = simulate(with_transfers(zero_bubble_h1(map, m), map), map, costs);
        EXPECT_NEAR(report.bubble, zero_bubble_h1_bubble(p, m, forward_s, input_s, weights_s), 1e-12)
            << p << " " << m << " " << input_s;
      }
    }
  }
}

TEST(ZeroBubbleV, HasLessThanHalfOf1f1bsBubbleForHalvesOfUnlikeLengthToo) {
  for (double input_s : {0.8, 1.0, 1.2, 1.4}) {
    for (int p = 2; p <= 16; ++p) {
      for (int m : {2 * p, 3 * p + 1, 8 * p}) {
        const StageMap map(p, 2, StageOrder::there_and_back);
        Costs costs = thirds(map);
        costs.input_share.assign(static_cast<size_t>(2 * p), input_s / 2);
        const Report report = simulate(with_transfers(zero_bubble_v(map, m), map), map, costs);
        EXPECT_LT(report.bubble, textbook_bubble(p, m) / 2) << p << " " << m << " " << input_s;
      }
    }
  }
}

TEST(ZeroBubbleV, GoesThereAndBack) {
  const Schedule schedule = zero_bubble_v(StageMap(2, 2, StageOrder::there_and_back), 3);
  EXPECT_EQ(text_of(schedule.programs[0]),
            "F0, F1, F2, F0'1, I0'1, W0'1, F1'1, I1'1, W1'1, I0, W0, F2'1, I2'1, W2'1, I1, W1, I2, W2");
  EXPECT_EQ(text_of(schedule.programs[1]),
            "F0, F0'1, F1, F1'1, I0'1, W0'1, F2, I0, W0, F2'1, I1'1, W1'1, I1, I2'1, I2, W1, W2'1, W2");
}

TEST(ZeroBubbleV, WaitsOnlyForItsFirstForwardAndHoldsNoMoreThan1f1b) {
  for (int p = 1; p <= 12; ++p) {
    for (int m = 2 * p - 1; m <= 5 * p; ++m) {
      const StageMap map(p, 2, StageOrder::there_and_back);
      const Schedule schedule = with_transfers(zero_bubble_v(map, m), map);
      const Report report = simulate(schedule, map, thirds(map));
      // p - 1 forwards of half a stage each against 6 m pieces of work.
      EXPECT_NEAR(report.bubble, zero_bubble_v_bubble(p, m), 1e-12) << p << " " << m;
      for (const std::vector<Action>& program : schedule.programs) {
        int alive = 0, most = 0;  // half stages
        for (const Action& action : program) {
          alive += is_forward(action.kind);
          most = std::max(most, alive);
          alive -= action.kind == backward_weights;
        }
        EXPECT_LE(most, 2 * p);
      }
    }
  }
}

TEST(ZeroBubble, RefusesOtherMaps) {
  const auto refusal = [](const std::function<void()>& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(refusal([] { zero_bubble_h1(StageMap(2, 2), 4); }).find("virtual_stages"), std::string::npos);
  EXPECT_NE(refusal([] { zero_bubble_v(StageMap(2, 3, StageOrder::there_and_back), 4); }).find("= 3"),
            std::string::npos);
  EXPECT_NE(refusal([] { interleaved(StageMap(2, 2, StageOrder::there_and_back), 4); }).find("round"),
            std::string::npos);
}

TEST(Hands, AreRightBehindTheGradientAndRightBeforeTheForward) {
  const StageMap map(1, 2);
  const Schedule schedule = with_reductions(with_transfers(interleaved(map, 1), map), map, {2, 2});
  EXPECT_EQ(
      text_of(schedule.programs[0]),
      "F0, hand activation 0 to '1, F0'1, B0'1/0, reduce/0'1, B0'1/1, hand gradient 0'1 to '0, reduce/1'1, "
      "B0/0, reduce/0, B0/1, reduce/1");
}

TEST(Hands, OfTheTurnHoldTheSlotThatTheyGoTo) {
  const StageMap map(2, 2, StageOrder::there_and_back);
  const Schedule schedule = with_slots(with_transfers(zero_bubble_v(map, 3), map), map);
  std::string hands;
  for (const Action& action : schedule.programs[1]) {
    if (is_hand(action.kind))
      hands += fmt::format("{}: {} -> {}; ", to_string(action), action.slot, action.to_slot);
  }
  EXPECT_EQ(
      hands,
      "hand activation 0 to '1: 0 -> 0; hand activation 1 to '1: 1 -> 1; hand gradient 0'1 to '0: 0 -> 0; "
      "hand activation 2 to '1: 2 -> 0; hand gradient 1'1 to '0: 1 -> 1; hand gradient 2'1 to '0: 0 -> 2; ");
  for (const Action& action : schedule.programs[0]) EXPECT_FALSE(is_hand(action.kind));
}

TEST(Hands, TakeTheirTime) {
  const StageMap map(1, 2);
  Costs costs = Costs::uniform(map, 1, 2);
  costs.hand_s = 0.25;
  const Report report = simulate(with_transfers(interleaved(map, 3), map), map, costs);
  EXPECT_DOUBLE_EQ(report.step_s, 3 * (6 + 0.5));
  EXPECT_DOUBLE_EQ(report.busy_s[0], 18);
}

TEST(Hands, OneThatIsMissingIsADeadlockThatIsExplained) {
  const StageMap map(2, 2, StageOrder::there_and_back);
  Schedule schedule = with_transfers(zero_bubble_v(map, 3), map);
  std::erase_if(schedule.programs[1],
                [](const Action& action) { return action.kind == hand_gradient && action.micro == 1; });
  const Report report = simulate(schedule, map, thirds(map));
  EXPECT_FALSE(report.is_complete);
  EXPECT_NE(report.explanation.find("its gradient is never handed over by stage 2: the hand is missing"),
            std::string::npos)
      << report.explanation;
}

/// The first action of a kind of a micro in a chunk.
Action& find(std::vector<Action>& program, ActionKind kind, int chunk, int micro) {
  for (Action& action : program) {
    if (action.kind == kind && action.chunk == chunk && action.micro == micro) return action;
  }
  fail(ExitCode::defect, "no {} {}'{}", name_of(kind), micro, chunk);
}

TEST(Validate, FindsAndExplainsFaultsOfHalvesAndHands) {
  using Program = std::vector<Action>;
  const auto swap = [](ActionKind a, int chunk_a, int micro_a, ActionKind b, int chunk_b, int micro_b) {
    return [=](Program& program) {
      std::swap(find(program, a, chunk_a, micro_a), find(program, b, chunk_b, micro_b));
    };
  };
  const auto erase = [](ActionKind kind, int chunk, int micro) {
    return [=](Program& program) {
      program.erase(program.begin() + (&find(program, kind, chunk, micro) - program.data()));
    };
  };
  struct Planted {
    const char* what;
    std::function<void(Program&)> plant;  // in the turn's program
    const char* says;
  };
  const std::vector<Planted> faults = {
      {"weights first", swap(backward_input, 1, 1, backward_weights, 1, 1),
       "W1'1 comes before its input half"},
      {"input first", swap(forward, 1, 0, backward_input, 1, 0), "I0'1 comes before F0"},
      {"inputs swapped", swap(backward_input, 0, 1, backward_input, 0, 2),
       "I1 adds to the gradients after micro-batch 2"},
      {"weights swapped", swap(backward_weights, 0, 1, backward_weights, 0, 2),
       "W1 adds to the gradients after micro-batch 2"},
      {"an input missing", erase(backward_input, 0, 2), "W2 comes before its input half"},
      {"weights missing", erase(backward_weights, 1, 2),
       "the backward of micro-batch 2 is missing or not whole"},
      {"an input twice", [](Program& program) { program.push_back(find(program, backward_input, 0, 0)); },
       "I0 comes twice"},
      {"whole beside halves",
       [](Program& program) { program.push_back({.kind = backward, .chunk = 0, .micro = 2}); },
       "B2 comes twice"},
      {"a hand missing", erase(hand_activation, 0, 1), "F1'1 was not handed its activation"},
      {"a gradient's hand missing", erase(hand_gradient, 1, 0), "I0 was not handed its gradient"},
      {"a hand too early", swap(forward, 0, 1, hand_activation, 0, 1),
       "hand activation 1 to '1 comes before F1"},
      {"a gradient's hand too early", swap(backward_input, 1, 0, hand_gradient, 1, 0),
       "hand gradient 0'1 to '0 comes before the backward of micro-batch 0"},
      {"a hand twice", [](Program& program) { program.push_back(find(program, hand_activation, 0, 0)); },
       "hand activation 0 to '1 comes twice"},
      {"a hand to itself", [](Program& program) { find(program, hand_activation, 0, 0).to_chunk = 0; },
       "chunk 0 is not the stage behind it on this position"},
      {"a hand to nowhere", [](Program& program) { find(program, hand_activation, 0, 0).to_chunk = 2; },
       "is in chunk 2 of 2"},
      {"a hand of no micro", [](Program& program) { find(program, hand_activation, 0, 0).micro = 3; },
       "is none of the 3 micro-batches"},
  };
  const StageMap map(2, 2, StageOrder::there_and_back);
  for (const Planted& fault : faults) {
    Schedule schedule = with_transfers(zero_bubble_v(map, 3), map);
    ASSERT_EQ(fault_of(schedule, map), "");
    fault.plant(schedule.programs[1]);
    const std::string found = fault_of(schedule, map);
    EXPECT_NE(found.find(fault.says), std::string::npos) << fault.what << ": found \"" << found << "\"";
  }
}

TEST(Validate, FindsForwardsOfTheHeadOutOfOrder) {
  const StageMap map(1);
  Schedule schedule = gpipe(StageMap(2), 3);
  schedule.programs.resize(1);
  ASSERT_EQ(fault_of(schedule, map), "");
  std::swap(schedule.programs[0][0], schedule.programs[0][1]);
  EXPECT_NE(fault_of(schedule, map).find("F0 adds to the gradients after micro-batch 1"), std::string::npos);
}

TEST(Validate, FindsAndExplainsFaultsOfSlots) {
  using Program = std::vector<Action>;
  struct Planted {
    const char* what;
    std::function<void(Program&)> plant;
    const char* says;
  };
  const std::vector<Planted> faults = {
      {"the weights elsewhere", [](Program& program) { find(program, backward_weights, 0, 1).slot = 2; },
       "W1 uses slot 2, which micro-batch 2 still holds"},
      {"the input elsewhere", [](Program& program) { find(program, backward_input, 0, 1).slot = 7; },
       "I1 uses slot 7, but its micro-batch lies in slot 1"},
      {"a hand into a held slot", [](Program& program) { find(program, hand_activation, 0, 1).to_slot = 0; },
       "hand activation 1 to '1 uses slot 0, which micro-batch 0 still holds"},
      {"a hand from the wrong slot", [](Program& program) { find(program, hand_gradient, 1, 1).slot = 0; },
       "hand gradient 1'1 to '0 reads slot 0, where there is micro-batch"},
      {"a send of what is not there", [](Program& program) { find(program, send_gradient, 0, 0).slot = 5; },
       "send gradient 0 to 0 reads slot 5, where there is no gradient yet"},
      {"a hand without a slot", [](Program& program) { find(program, hand_gradient, 1, 1).to_slot = -1; },
       "hand gradient 1'1 to '0 lacks a slot"},
      {"a slot given back before the weights",
       [](Program& program) {
         for (Action& action : program) {
           if (action.chunk == 0 && action.micro == 2 && action.slot >= 0) action.slot = 1;
         }
       },
       "which micro-batch 1 still holds"},
  };
  const StageMap map(2, 2, StageOrder::there_and_back);
  for (const Planted& fault : faults) {
    Schedule schedule = with_slots(with_transfers(zero_bubble_v(map, 3), map), map);
    ASSERT_EQ(fault_of(schedule, map), "");
    fault.plant(schedule.programs[1]);
    const std::string found = fault_of(schedule, map);
    EXPECT_NE(found.find(fault.says), std::string::npos) << fault.what << ": found \"" << found << "\"";
  }
}

}  // namespace
}  // namespace ptrain
