// Where a unit's parameters (ZeRO-3) or gradients (ZeRO-2 and 3, trees) lie while it is worked on, when the
// rank does not hold them all: blocks take turns in two places, the ends of the model have one each. Pure.
#pragma once

#include <vector>

#include "parallel/plan/plan.h"

namespace ptrain {

struct UnitPlaces {
  std::vector<int> of_bucket;     // [bucket]: its place
  std::vector<int64_t> elements;  // [place]: as many as the largest bucket that comes there
};

/// Where every bucket is one unit (Plan::has_unit_gradients(), zero 3).
UnitPlaces unit_places(const Plan& plan, const FlatLayout& layout);

/// Which parameters are in their places. Run, traffic and launch order play the same rule: what is there is
/// not gathered again, and while a unit is worked on the next one's parameters come.
class Residency {
 public:
  explicit Residency(UnitPlaces places) : places_(std::move(places)), held_(places_.elements.size(), -1) {}

  /// True where the bucket must be gathered now: it was not in its place, and is from now on.
  bool take(int bucket);
  /// Parameters have changed: nothing is there.
  void forget() { held_.assign(held_.size(), -1); }
  const UnitPlaces& places() const { return places_; }

 private:
  UnitPlaces places_;
  std::vector<int> held_;  // [place]: bucket
};

/// Units of a stage whose parameters an action reads, in order. The table of the head goes with it.
/// `units`: of the action. Backward reads those of blocks alone.
std::vector<int64_t> units_read(const Plan& plan, Range units, bool is_forward);

}  // namespace ptrain
