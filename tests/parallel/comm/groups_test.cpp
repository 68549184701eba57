// Groups of ranks, the communicators of a mesh, the recording communicator, texts and agreements.
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "parallel/comm/mesh_comms.h"
#include "parallel/comm/recording_comm.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

// The world ranks of a group, in its order.
std::vector<int64_t> world_ranks(Communicator& group, int world_rank) {
  std::vector<int64_t> mine = {world_rank};
  std::vector<int64_t> all(static_cast<size_t>(group.size()));
  group.all_gather(tensor_of(mine), tensor_of(all));
  return all;
}

TEST(Groups, SplitOrdersByKeyAndThenByRank) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      const int color = comm.rank() % 2;
      const std::unique_ptr<Communicator> backwards = comm.split(color, -comm.rank());
      const std::unique_ptr<Communicator> in_order = comm.split(color, 0);
      std::vector<int64_t> expected;
      for (int rank = color; rank < ranks; rank += 2) expected.push_back(rank);
      EXPECT_EQ(world_ranks(*in_order, comm.rank()), expected);
      std::reverse(expected.begin(), expected.end());
      EXPECT_EQ(world_ranks(*backwards, comm.rank()), expected);
    });
  }
}

TEST(Groups, ANegativeColorTakesPartAndGetsNothing) {
  for (const int ranks : world_sizes({2, 3, 5})) {
    run_ranks(ranks, [&](Communicator& comm) {
      const bool is_last = comm.rank() == ranks - 1;
      const std::unique_ptr<Communicator> group = comm.split(is_last ? -1 : 7, 0);
      EXPECT_EQ(group == nullptr, is_last);
      if (group != nullptr) {
        EXPECT_EQ(group->size(), ranks - 1);
      }
    });
  }
}

TEST(Groups, MessagesOfAGroupDoNotMixWithThoseOfItsParent) {
  for (const int ranks : world_sizes({2, 4})) {
    run_ranks(ranks, [&](Communicator& comm) {
      const std::unique_ptr<Communicator> group = comm.split(0, 0);
      const std::unique_ptr<Communicator> inner = group->split(0, 0);
      const int right = (comm.rank() + 1) % ranks;
      const int left = (comm.rank() + ranks - 1) % ranks;
      std::vector<int32_t> sent = {1, 2, 3};
      std::vector<int32_t> received = {0, 0, 0};
      Communicator* levels[] = {&comm, group.get(), inner.get()};
      std::vector<Transfer> transfers;
      const auto element = [](std::vector<int32_t>& of, int i) {
        return Tensor(&of[static_cast<size_t>(i)], {1}, DType::i32);
      };
      for (int i = 0; i < 3; ++i) {
        transfers.push_back(levels[i]->isend(element(sent, i), right, Lane::control));
      }
      for (int i = 2; i >= 0; --i) {
        transfers.push_back(levels[i]->irecv(element(received, i), left, Lane::control));
      }
      for (Transfer& transfer : transfers) transfer.wait();
      EXPECT_EQ(received, sent);
    });
  }
}

TEST(MeshComms, EveryAxisHoldsTheRanksThatThePlanSays) {
  for (const int ranks : world_sizes()) {
    for (int tensor = 1; tensor <= ranks; ++tensor) {
      for (int data = 1; tensor * data <= ranks; ++data) {
        if (ranks % (tensor * data) != 0) continue;
        const Mesh mesh{.pipeline = ranks / tensor / data, .data = data, .tensor = tensor};
        run_ranks(ranks, [&](Communicator& comm) {
          const MeshComms comms = make_mesh_comms(comm, mesh);
          const Coordinate at = mesh.coordinate_of(comm.rank());
          for (const Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
            const std::vector<int> planned = mesh.group(comm.rank(), axis);
            Communicator& along = comms.along(axis);
            EXPECT_EQ(world_ranks(along, comm.rank()), std::vector<int64_t>(planned.begin(), planned.end()));
            EXPECT_EQ(along.rank(), index_along(at, axis));
          }
          EXPECT_EQ(comms.world, &comm);
        });
      }
    }
  }
}

TEST(MeshComms, AMeshOfAnotherSizeIsRefusedWithBothNumbers) {
  for (const int ranks : world_sizes({3})) {
    run_ranks(ranks, [&](Communicator& comm) {
      try {
        make_mesh_comms(comm, Mesh{.pipeline = 2, .data = ranks, .tensor = 1});
        ADD_FAILURE() << "was accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::usage);
        EXPECT_NE(std::string(error.what()).find(fmt::format("{}", 2 * ranks)), std::string::npos);
        EXPECT_NE(std::string(error.what()).find(fmt::format("{}", ranks)), std::string::npos);
      }
    });
  }
}

TEST(RecordingCommunicator, WritesDownEveryCallAndPassesItOn) {
  for (const int ranks : world_sizes({1, 2, 3})) {
    run_ranks(ranks, [&](Communicator& comm) {
      RecordingCommunicator recorder(comm);
      std::vector<double> one = {1.0};
      std::vector<float> part(3, 1.0F);
      std::vector<float> whole(static_cast<size_t>(3 * ranks), 2.0F);
      recorder.all_reduce(tensor_of(one), Reduce::sum, SumOrder::ranks);
      EXPECT_EQ(one[0], ranks);
      recorder.start_all_reduce(tensor_of(part), Reduce::max, SumOrder::tree).wait();
      EXPECT_EQ(part[0], 1.0F);
      recorder.start_reduce_scatter(tensor_of(whole), tensor_of(part), SumOrder::ranks).wait();
      EXPECT_EQ(part[0], 2.0F * static_cast<float>(ranks));
      recorder.start_all_gather(tensor_of(part), tensor_of(whole)).wait();
      recorder.broadcast(tensor_of(part), ranks - 1);
      Transfer receive = recorder.irecv(tensor_of(part), comm.rank(), Lane::gradient);
      std::vector<float> sent(3, 5.0F);
      recorder.isend(tensor_of(sent), comm.rank(), Lane::gradient).wait();
      receive.wait();
      EXPECT_EQ(part[2], 5.0F);
      recorder.barrier();

      std::vector<std::string> lines;
      for (const Call& call : recorder.calls()) lines.push_back(to_string(call));
      const std::vector<std::string> expected = {
          "all_reduce 1 f64",
          "all_reduce 3 f32 as a tree",
          fmt::format("reduce_scatter {} f32", 3 * ranks),
          fmt::format("all_gather {} f32", 3 * ranks),
          fmt::format("broadcast 3 f32 root {}", ranks - 1),
          fmt::format("point_to_point 3 f32 from {} lane 1", comm.rank()),
          fmt::format("point_to_point 3 f32 to {} lane 1", comm.rank()),
          "barrier 0 u8",
      };
      EXPECT_EQ(lines, expected);
    });
  }
}

TEST(HostObjects, TextsOfAnyLengthArriveInRankOrder) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      const auto text_of = [](int rank) {
        return std::string(static_cast<size_t>(rank * rank * 500), 'a') + "é";
      };
      std::vector<std::string> expected;
      for (int rank = 0; rank < ranks; ++rank) expected.push_back(rank == 0 ? "" : text_of(rank));
      const std::string mine = expected[static_cast<size_t>(comm.rank())];
      EXPECT_EQ(all_gather_text(comm, mine), expected);
      for (int root = 0; root < ranks; ++root) {
        const std::vector<std::string> gathered = gather_text(comm, mine, root);
        EXPECT_EQ(gathered, comm.rank() == root ? expected : std::vector<std::string>{});
        EXPECT_EQ(broadcast_text(comm, mine, root), expected[static_cast<size_t>(root)]);
      }
    });
  }
}

TEST(Agree, NothingHappensWhereNoRankHasAnError) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [](Communicator& comm) { EXPECT_NO_THROW(agreed(comm, [] {})); });
  }
}

TEST(Agree, AllRanksLeaveWithTheLowestRanksErrorAndOneSpeaks) {
  for (const int ranks : world_sizes()) {
    for (int bad = 0; bad < ranks; ++bad) {
      run_ranks(ranks, [&](Communicator& comm) {
        try {
          agreed(comm, [&] { check(comm.rank() < bad, ExitCode::input, "file {} is broken", bad); });
          ADD_FAILURE() << "nobody spoke";
        } catch (const AgreedError& error) {
          EXPECT_EQ(error.code(), ExitCode::input);
          EXPECT_EQ(error.what(), fmt::format("file {} is broken", bad));
          EXPECT_EQ(error.is_speaker(), comm.rank() == bad);
        }
        comm.barrier();  // all of them are still in step
      });
    }
  }
}

TEST(Agree, WhetherAllFoundItIsKnown) {
  for (const int ranks : world_sizes({2, 3})) {
    for (const bool is_of_all : {true, false}) {
      run_ranks(ranks, [&](Communicator& comm) {
        try {
          agreed(comm, [&] { check(!is_of_all && comm.rank() > 0, ExitCode::input, "broken"); });
          ADD_FAILURE() << "nobody spoke";
        } catch (const AgreedError& error) {
          const bool all = is_of_all || comm.size() == 1;
          EXPECT_EQ(error.found_by(), all ? AgreedError::FoundBy::all : AgreedError::FoundBy::some);
        }
      });
    }
  }
}

TEST(Agree, TextsThatShouldBeAlikeAreComparedWithThatOfTheFirstRank) {
  const auto objection = [](std::string_view first) { return fmt::format("not {}", first); };
  for (const int ranks : world_sizes()) {
    for (int bad = 1; bad < ranks; ++bad) {
      run_ranks(ranks, [&](Communicator& comm) {
        agree_alike(comm, ExitCode::input, "same", objection);
        agree_alike(comm, ExitCode::input, comm.rank() == 0 ? "same" : "", objection);
        try {
          agree_alike(comm, ExitCode::input, comm.rank() == bad ? "other" : "same", objection);
          ADD_FAILURE() << "nobody spoke";
        } catch (const AgreedError& error) {
          EXPECT_STREQ(error.what(), "not same");
          EXPECT_EQ(error.is_speaker(), comm.rank() == bad);
        }
      });
    }
  }
}

TEST(Agree, TheFirstLineThatDiffersIsFound) {
  const struct {
    std::string_view a, b, mine, first;
  } cases[] = {{"", "", "", ""},
               {"x 1\ny 2\n", "x 1\ny 2\n", "", ""},
               {"x 1\ny 2", "x 1\ny 3", "y 2", "y 3"},
               {"x 1\ny 2\n", "x 1\n", "y 2", ""},
               {"", "x", "", "x"},
               {"x 1\ny", "x 10\ny", "x 1", "x 10"}};
  for (const auto& c : cases) {
    const DifferentLines lines = first_difference(c.a, c.b);
    EXPECT_EQ(lines.mine, c.mine);
    EXPECT_EQ(lines.first, c.first);
  }
}

TEST(Agree, OtherErrorsOfOtherRanksAreMentioned) {
  for (const int ranks : world_sizes({3, 4})) {
    if (ranks < 3) continue;
    run_ranks(ranks, [&](Communicator& comm) {
      try {
        agreed(comm, [&] {
          check(comm.rank() == 0, comm.rank() == 1 ? ExitCode::resources : ExitCode::input,
                "rank {} cannot go on", comm.rank());
        });
        ADD_FAILURE() << "nobody spoke";
      } catch (const AgreedError& error) {
        EXPECT_EQ(error.code(), ExitCode::resources);
        EXPECT_EQ(error.what(),
                  fmt::format("rank 1 cannot go on ({} more ranks report other errors)", ranks - 2));
      }
    });
  }
}

}  // namespace
}  // namespace ptrain
