#include "parallel/plan/flat.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/plan/buckets.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

std::vector<Range> buckets_of(const Workload& workload, Range units, int64_t target) {
  std::vector<BucketUnit> sizes;
  for (int64_t unit = units.begin; unit < units.end(); ++unit) {
    int64_t elements = 0;
    for (const UnitPiece& piece : workload.units[static_cast<size_t>(unit)].pieces) {
      elements += piece.piece.shape.numel();
    }
    sizes.push_back({.elements = elements});
  }
  return cut_buckets(sizes, units.begin, target);
}

const UnitPiece& entry_of(const Workload& workload, const FlatPiece& flat) {
  return workload.units[static_cast<size_t>(flat.unit)].pieces[static_cast<size_t>(flat.index)];
}

struct Case {
  Workload workload;
  Mesh mesh;
  Range units;
  std::vector<Range> buckets;
};

Case random_case(Cases& cases) {
  Case result;
  const int64_t K = cases.between(1, 3), group = cases.between(1, 3);
  ToySizes sizes{.V = cases.between(5, 40),
                 .C = cases.between(3, 20),
                 .L = cases.between(1, 5),
                 .H = K * group,
                 .K = K,
                 .D = cases.between(1, 4),
                 .F = cases.between(3, 30)};
  result.workload = toy_workload(sizes, Tied::apart);
  for (Unit& unit : result.workload.units) {
    for (UnitPiece& piece : unit.pieces) piece.piece.is_trainable = cases.between(0, 9) > 0;
  }
  result.mesh = {.pipeline = 1,
                 .data = static_cast<int>(cases.between(1, 5)),
                 .tensor = static_cast<int>(cases.between(1, 6))};
  const int64_t begin = cases.between(0, sizes.L + 2);
  result.units = {begin, cases.between(1, sizes.L + 3 - begin)};
  result.buckets = buckets_of(result.workload, result.units, cases.between(1, 4000));
  return result;
}

TEST(Flat, PiecesTileTheBufferInOrderAndGroupsAreAligned) {
  Cases cases(10);
  for (int i = 0; i < 1500; ++i) {
    const Case test = random_case(cases);
    const int rank = static_cast<int>(cases.between(0, test.mesh.world() - 1));
    const FlatLayout layout = flat_layout(test.workload, {{test.units, test.buckets}}, test.mesh, rank);
    std::vector<FlatPiece> pieces = layout.pieces;
    size_t expected = 0;
    for (int64_t unit = test.units.begin; unit < test.units.end(); ++unit) {
      expected += test.workload.units[static_cast<size_t>(unit)].pieces.size();
    }
    ASSERT_EQ(pieces.size(), expected);
    std::erase_if(pieces, [](const FlatPiece& piece) { return piece.elements.count == 0; });
    std::ranges::stable_sort(pieces, {}, [](const FlatPiece& piece) { return piece.elements.begin; });
    int64_t end = 0;
    for (size_t k = 0; k < pieces.size(); ++k) {
      const FlatPiece& flat = pieces[k];
      const UnitPiece& entry = entry_of(test.workload, flat);
      EXPECT_GE(flat.elements.begin, end);
      EXPECT_EQ(flat.elements.count, flat.box.numel());
      EXPECT_EQ(flat.box, local_box(entry.piece.shape, entry.piece.layout, test.mesh, rank));
      EXPECT_EQ(entry.piece.is_trainable, flat.elements.begin < layout.trainable_elements);
      EXPECT_EQ(entry.piece.is_trainable, flat.elements.end() <= layout.trainable_elements);
      const bool follows =
          k > 0 && entry.fusion != 0 && pieces[k - 1].unit == flat.unit &&
          entry_of(test.workload, pieces[k - 1]).fusion == entry.fusion &&
          entry_of(test.workload, pieces[k - 1]).piece.is_trainable == entry.piece.is_trainable;
      if (follows) {
        EXPECT_EQ(flat.elements.begin, end) << "a gap inside a fusion group";
      } else {
        EXPECT_EQ(flat.elements.begin % flat_alignment, 0);
      }
      end = flat.elements.end();
    }
    EXPECT_LE(end, layout.elements);
    EXPECT_EQ(layout.elements % flat_alignment, 0);
  }
}

TEST(Flat, BucketsTileTheTrainablePartAndShardsTileBuckets) {
  Cases cases(11);
  for (int i = 0; i < 1500; ++i) {
    const Case test = random_case(cases);
    const FlatLayout layout = flat_layout(test.workload, {{test.units, test.buckets}}, test.mesh, 0);
    int64_t end = layout.trainable_elements;
    for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      const Range elements = layout.buckets[bucket].elements;
      EXPECT_EQ(elements.end(), end);
      end = elements.begin;
      int64_t shard_end = elements.begin;
      for (int data = 0; data < test.mesh.data; ++data) {
        const Range shard = shard_of(layout, static_cast<int>(bucket), data);
        EXPECT_EQ(shard.begin, shard_end);
        EXPECT_EQ(shard.count, elements.count / test.mesh.data);
        EXPECT_EQ(shard.begin % flat_alignment, 0);
        shard_end = shard.end();
      }
      EXPECT_EQ(shard_end, elements.end());
      const Range units = layout.buckets[bucket].units;
      for (const FlatPiece& flat : layout.pieces) {
        if (!entry_of(test.workload, flat).piece.is_trainable || flat.elements.count == 0) continue;
        const bool is_inside = flat.unit >= units.begin && flat.unit < units.end();
        EXPECT_EQ(intersection(elements, flat.elements).count, is_inside ? flat.elements.count : 0);
      }
    }
    EXPECT_EQ(end, 0);
    EXPECT_EQ(shard_elements(layout) * test.mesh.data, layout.trainable_elements);
  }
}

TEST(Flat, CountedElementsOfAllRanksAreEveryParameterOnce) {
  Cases cases(12);
  for (int i = 0; i < 800; ++i) {
    Case test = random_case(cases);
    test.units = {0, static_cast<int64_t>(test.workload.units.size())};
    test.buckets = buckets_of(test.workload, test.units, 500);
    int64_t parameters = 0, trainable = 0;
    for (const Unit& unit : test.workload.units) {
      for (const UnitPiece& entry : unit.pieces) {
        if (entry.is_tied_copy) continue;
        parameters += entry.piece.shape.numel();
        trainable += entry.piece.is_trainable ? entry.piece.shape.numel() : 0;
      }
    }
    int64_t counted = 0, counted_in_shards = 0;
    for (int rank = 0; rank < test.mesh.world(); ++rank) {
      const FlatLayout layout = flat_layout(test.workload, {{test.units, test.buckets}}, test.mesh, rank);
      const int data = test.mesh.coordinate_of(rank).data;
      for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
        for (Range range : counted_in(layout, shard_of(layout, static_cast<int>(bucket), data))) {
          counted_in_shards += range.count;
        }
      }
      if (data != 0) continue;
      for (const FlatPiece& flat : layout.pieces) {
        for (Range range : flat.counted) {
          EXPECT_EQ(intersection(range, flat.elements), range);
          counted += range.count;
        }
      }
    }
    ASSERT_EQ(counted, parameters);
    ASSERT_EQ(counted_in_shards, trainable);
  }
}

TEST(Flat, ChunksLieOneBehindTheOtherAndShardsAloneFollowTheSameOrder) {
  const Workload workload = toy_workload({.L = 4}, Tied::apart);
  const Mesh mesh{.pipeline = 2, .data = 3, .tensor = 1};
  const FlatLayout layout =
      flat_layout(workload, {{{0, 2}, {{1, 1}, {0, 1}}}, {{4, 3}, {{6, 1}, {4, 2}}}}, mesh, 0);
  EXPECT_EQ(layout.first_bucket, (std::vector<int>{0, 2}));
  EXPECT_EQ(layout.bucket_of(1, 1), 3);
  EXPECT_EQ(layout.bucket_of_unit(4), 3);
  EXPECT_THROW((void)layout.bucket_of_unit(3), Error);
  EXPECT_EQ(layout.buckets[2].chunk, 1);
  int64_t end = 0, compact_end = 0;
  for (int bucket : {1, 0, 3, 2}) {  // ascending units
    EXPECT_EQ(layout.buckets[static_cast<size_t>(bucket)].elements.begin, end);
    end = layout.buckets[static_cast<size_t>(bucket)].elements.end();
    EXPECT_EQ(compact_shard(layout, bucket).begin, compact_end);
    EXPECT_EQ(compact_shard(layout, bucket).count, shard_of(layout, bucket, 2).count);
    compact_end = compact_shard(layout, bucket).end();
  }
  EXPECT_EQ(end, layout.trainable_elements);
  EXPECT_EQ(compact_end, shard_elements(layout));
}

TEST(Flat, RangesOfABoxAreItsElementsInOrder) {
  // Rows 1-2, columns 1-3 of a local box of 4 x 5 that begins at (10, 20).
  const Box local{.begin = {10, 20}, .extent = {4, 5}};
  EXPECT_EQ(flat_ranges(local, {.begin = {11, 21}, .extent = {2, 3}}), (std::vector<Range>{{6, 3}, {11, 3}}));
  EXPECT_EQ(flat_ranges(local, {.begin = {11, 20}, .extent = {2, 5}}), (std::vector<Range>{{5, 10}}));
  EXPECT_EQ(flat_ranges(local, local), (std::vector<Range>{{0, 20}}));
  EXPECT_EQ(flat_ranges({.begin = {}, .extent = {2, 3, 4}}, {.begin = {1, 0, 2}, .extent = {1, 3, 2}}),
            (std::vector<Range>{{14, 2}, {18, 2}, {22, 2}}));
  EXPECT_EQ(flat_ranges({.begin = {5}, .extent = {7}}, {.begin = {6}, .extent = {2}}),
            (std::vector<Range>{{1, 2}}));
}

TEST(Flat, RangesOfAPartAreItsElementsOneByOneMerged) {
  Cases cases(31);
  for (int i = 0; i < 500; ++i) {
    Box local{.extent = {1, 1, 1}}, part{.extent = {1, 1, 1}};
    for (int dim = 0; dim < 3; ++dim) {
      const auto d = static_cast<size_t>(dim);
      const int64_t length = cases.between(1, 5), taken = cases.coin() ? length : cases.between(1, length);
      local.extent.set(dim, length);
      part.extent.set(dim, taken);
      local.begin[d] = cases.between(0, 9);
      part.begin[d] = local.begin[d] + cases.between(0, length - taken);
    }
    std::vector<Range> expected;
    for (int64_t element = 0; element < local.numel(); ++element) {
      bool is_inside = true;
      int64_t rest = element;
      for (int dim = 2; dim >= 0; --dim) {
        const auto d = static_cast<size_t>(dim);
        const int64_t index = local.begin[d] + rest % local.extent[dim] - part.begin[d];
        is_inside &= index >= 0 && index < part.extent[dim];
        rest /= local.extent[dim];
      }
      if (!is_inside) continue;
      if (!expected.empty() && expected.back().end() == element) {
        ++expected.back().count;
      } else {
        expected.push_back({element, 1});
      }
    }
    EXPECT_EQ(flat_ranges(local, part), expected);
  }
}

TEST(Flat, ATiedCopyIsHeldButNeverCounted) {
  const Workload workload = toy_workload({}, Tied::apart);
  const Range units{4, 3};
  const Mesh mesh{.pipeline = 2, .data = 1, .tensor = 2};
  const FlatLayout layout = flat_layout(workload, {{units, {{6, 1}, {5, 1}, {4, 1}}}}, mesh, 2);
  const FlatPiece& copy = layout.piece(6, 0);
  EXPECT_EQ(copy.elements.count, 99 * 48);
  EXPECT_TRUE(copy.counted.empty());
  EXPECT_THROW(layout.piece(0, 0), Error);
}

TEST(Flat, ASharedKeyValueHeadIsCountedOnce) {
  // 6 query heads, 2 KV heads, 3 tensor ranks: the middle rank holds both KV heads and counts the second.
  const Workload workload = toy_workload({});
  const Mesh mesh{.pipeline = 1, .data = 1, .tensor = 3};
  const FlatLayout layout = flat_layout(workload, {{{1, 1}, {{1, 1}}}}, mesh, 1);
  const FlatPiece& k = layout.piece(1, 2);
  EXPECT_EQ(k.elements.count, 16 * 48);
  EXPECT_EQ(k.counted, (std::vector<Range>{{k.elements.begin + 8 * 48, 8 * 48}}));
  const FlatPiece& q = layout.piece(1, 1);
  EXPECT_EQ(q.elements.end(), k.elements.begin) << "q and k are one product";
}

}  // namespace
}  // namespace ptrain
