#include "parallel/plan/schedule.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

std::string text_of(const std::vector<Action>& program) {
  std::string text;
  for (const Action& action : program) text += (text.empty() ? "" : ", ") + to_string(action);
  return text;
}

TEST(Schedule, GpipeRunsAllForwardsThenBackwardsInAscendingOrder) {
  const Schedule schedule = gpipe(StageMap(2), 3);
  for (const auto& program : schedule.programs) EXPECT_EQ(text_of(program), "F0, F1, F2, B0, B1, B2");
}

TEST(Schedule, GpipeOnOneStageAlternatesAsOneFOneBDoes) {
  EXPECT_EQ(gpipe(StageMap(1), 5).programs, one_f_one_b(StageMap(1), 5).programs);
}

TEST(Schedule, OneFOneBWarmsUpByTheDistanceToTheLastStage) {
  const Schedule schedule = one_f_one_b(StageMap(3), 4);
  EXPECT_EQ(text_of(schedule.programs[0]), "F0, F1, F2, B0, F3, B1, B2, B3");
  EXPECT_EQ(text_of(schedule.programs[1]), "F0, F1, B0, F2, B1, F3, B2, B3");
  EXPECT_EQ(text_of(schedule.programs[2]), "F0, B0, F1, B1, F2, B2, F3, B3");
}

TEST(Schedule, OneFOneBRefusesSeveralChunks) {
  try {
    one_f_one_b(StageMap(2, 2), 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("virtual_stages"), std::string::npos) << error.what();
  }
}

TEST(Schedule, TransfersSendAtOnceAndReceiveJustBeforeUse) {
  const StageMap map(2);
  const Schedule schedule = with_transfers(one_f_one_b(map, 2), map);
  EXPECT_EQ(text_of(schedule.programs[0]),
            "F0, send activation 0 to 1, F1, send activation 1 to 1, receive gradient 0 from 1, B0, receive "
            "gradient 1 from 1, B1");
  EXPECT_EQ(text_of(schedule.programs[1]),
            "receive activation 0 from 0, F0, B0, send gradient 0 to 0, receive activation 1 from 0, F1, B1, "
            "send gradient 1 to 0");
}

TEST(Schedule, ReductionsStartWithinTheLastBackwardAndBehindItsSend) {
  const StageMap map(2);
  const Schedule schedule = with_reductions(with_transfers(one_f_one_b(map, 1), map), map, {2, 3});
  EXPECT_EQ(text_of(schedule.programs[0]),
            "F0, send activation 0 to 1, receive gradient 0 from 1, B0/0, reduce/0, B0/1, reduce/1");
  EXPECT_EQ(text_of(schedule.programs[1]),
            "receive activation 0 from 0, F0, B0/0, reduce/0, B0/1, reduce/1, B0/2, send gradient 0 to 0, "
            "reduce/2");
}

TEST(Schedule, EarlyReceivesPassOneComputeOfAnotherSlot) {
  const StageMap map(2);
  const Schedule schedule = with_early_receives(with_slots(with_transfers(one_f_one_b(map, 3), map), map));
  EXPECT_EQ(text_of(schedule.programs[0]),
            "F0, send activation 0 to 1, receive gradient 0 from 1, F1, send activation 1 to 1, B0, receive "
            "gradient 1 from 1, F2, send activation 2 to 1, receive gradient 2 from 1, B1, B2");
}

struct Lowered {
  StageMap map{1};
  std::vector<int> buckets;
  Schedule schedule;
};

Lowered random_schedule(Cases& cases) {
  Lowered lowered;
  lowered.map = StageMap(static_cast<int>(cases.between(1, 12)));
  const int micros = static_cast<int>(cases.between(1, 20));
  for (int stage = 0; stage < lowered.map.stages(); ++stage) {
    lowered.buckets.push_back(static_cast<int>(cases.between(1, 4)));
  }
  Schedule schedule = cases.coin() ? gpipe(lowered.map, micros) : one_f_one_b(lowered.map, micros);
  schedule = with_reductions(with_transfers(std::move(schedule), lowered.map), lowered.map, lowered.buckets);
  lowered.schedule = with_slots(std::move(schedule), lowered.map);
  if (cases.coin()) lowered.schedule = with_early_receives(std::move(lowered.schedule));
  return lowered;
}

TEST(Schedule, EveryLoweredScheduleIsValidAndUsesAsManySlotsAsItHoldsMicros) {
  Cases cases(5);
  for (int i = 0; i < 2000; ++i) {
    const Lowered lowered = random_schedule(cases);
    ASSERT_EQ(fault_of(lowered.schedule, lowered.map, lowered.buckets), "") << "case " << i;
    const int p = lowered.map.positions(), m = lowered.schedule.micros;
    const auto slots = slots_of(lowered.schedule, lowered.map);
    for (int position = 0; position < p; ++position) {
      const bool is_1f1b = lowered.schedule.name == "1f1b" || p == 1;
      EXPECT_EQ(slots[static_cast<size_t>(position)][0], is_1f1b ? std::min(p - position, m) : m);
    }
  }
}

TEST(Schedule, GpipeOverSeveralChunksKeepsItsLanesInOrder) {
  for (int positions = 1; positions <= 4; ++positions) {
    for (int chunks = 1; chunks <= 3; ++chunks) {
      const StageMap map(positions, chunks);
      const std::vector<int> buckets(static_cast<size_t>(map.stages()), 2);
      Schedule schedule = with_transfers(gpipe(map, 5), map);
      schedule = with_slots(with_reductions(std::move(schedule), map, buckets), map);
      EXPECT_EQ(fault_of(schedule, map, buckets), "") << positions << " positions, " << chunks << " chunks";
    }
  }
}

/// The index of an action of this kind for this micro.
size_t place_of(const std::vector<Action>& program, ActionKind kind, int micro) {
  for (size_t i = 0; i < program.size(); ++i) {
    if (program[i].kind == kind && program[i].micro == micro) return i;
  }
  ADD_FAILURE() << "no " << name_of(kind) << " " << micro;
  return 0;
}

struct Planted {
  const char* what;
  std::function<void(std::vector<Action>&)> plant;  // in position 1's program of three
  const char* says;
};

TEST(Schedule, PlantedFaultsAreFoundAndExplained) {
  using Program = std::vector<Action>;
  const auto erase = [](ActionKind kind, int micro) {
    return [=](Program& program) {
      program.erase(program.begin() + static_cast<ptrdiff_t>(place_of(program, kind, micro)));
    };
  };
  const auto swap = [](ActionKind a, int micro_a, ActionKind b, int micro_b) {
    return [=](Program& program) {
      std::swap(program[place_of(program, a, micro_a)], program[place_of(program, b, micro_b)]);
    };
  };
  const auto repeat = [](ActionKind kind, int micro) {
    return [=](Program& program) {
      const size_t place = place_of(program, kind, micro);
      program.insert(program.begin() + static_cast<ptrdiff_t>(place), program[place]);
    };
  };
  using enum ActionKind;
  const std::vector<Planted> faults = {
      {"a missing receive", erase(receive_activation, 2), "F2 has not received its activation"},
      {"a missing send", erase(send_activation, 3),
       "message 3 is sent for micro-batch 4, but received as micro-batch 3"},
      {"the last send missing", erase(send_activation, 4), "4 messages are sent, 5 are received"},
      {"a send before its backward", swap(backward, 2, send_gradient, 2),
       "send gradient 2 to 0 comes before the backward of micro-batch 2"},
      {"a missing forward", erase(forward, 1), "B1 comes before F1"},
      {"a missing backward", erase(backward, 1), "stage 1: the backward of micro-batch 1 is missing"},
      {"swapped sends", swap(send_activation, 1, send_activation, 2),
       "send activation 2 to 2 comes before F2"},
      {"swapped receives", swap(receive_gradient, 1, receive_gradient, 2),
       "B1 has not received its gradient"},
      {"swapped backwards", swap(backward, 1, backward, 2), "ascending order"},
      {"a forward twice", repeat(forward, 3), "F3 comes twice"},
      {"a backward twice", repeat(backward, 3), "B3 comes twice"},
      {"a message twice", repeat(send_gradient, 2), "is sent for micro-batch"},
      {"a wrong micro", [](Program& program) { program[place_of(program, forward, 4)].micro = 9; },
       "F9 is none of the 5 micro-batches"},
      {"a wrong chunk", [](Program& program) { program[0].chunk = 2; }, "chunk 2 of 1"},
      {"a wrong peer", [](Program& program) { program[place_of(program, send_activation, 0)].peer = 0; },
       "lane from position 1 to 0"},
  };
  const StageMap map(3);
  for (const Planted& fault : faults) {
    Schedule schedule = with_transfers(one_f_one_b(map, 5), map);
    fault.plant(schedule.programs[1]);
    const std::string found = fault_of(schedule, map);
    EXPECT_NE(found.find(fault.says), std::string::npos) << fault.what << ": found \"" << found << "\"";
    EXPECT_THROW(validate(schedule, map), Error) << fault.what;
  }
}

TEST(Schedule, FaultsOfReductionsAndSlotsAreFound) {
  const StageMap map(2);
  const std::vector<int> buckets = {2, 2};
  const Schedule good =
      with_slots(with_reductions(with_transfers(one_f_one_b(map, 4), map), map, buckets), map);
  ASSERT_EQ(fault_of(good, map, buckets), "");

  Schedule late = good;  // a bucket is never reduced
  std::erase_if(late.programs[0],
                [](const Action& action) { return action.kind == ActionKind::reduce && action.bucket == 1; });
  EXPECT_EQ(fault_of(late, map, buckets), "stage 0: 1 of 2 buckets are reduced");

  Schedule early = good;  // a bucket is reduced before its gradients are whole
  std::vector<Action>& program = early.programs[1];
  for (size_t i = 0; i + 1 < program.size(); ++i) {
    if (program[i].bucket == 0 && program[i + 1].kind == ActionKind::reduce) {
      std::swap(program[i], program[i + 1]);
      break;
    }
  }
  EXPECT_NE(fault_of(early, map, buckets).find("starts before the last micro-batch"), std::string::npos)
      << fault_of(early, map, buckets);

  Schedule shared = good;  // two live micros in one slot
  for (Action& action : shared.programs[0]) {
    if (action.slot > 0) action.slot = 0;
  }
  EXPECT_NE(fault_of(shared, map, buckets).find("still holds"), std::string::npos);
}

}  // namespace
}  // namespace ptrain
