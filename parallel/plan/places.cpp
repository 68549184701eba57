#include "parallel/plan/places.h"

#include <algorithm>

namespace ptrain {

UnitPlaces unit_places(const Plan& plan, const FlatLayout& layout) {
  constexpr int turns = 2;
  UnitPlaces places{.of_bucket = std::vector<int>(layout.buckets.size()),
                    .elements = std::vector<int64_t>(turns)};
  // Ascending units, so that neighbours never share a place.
  std::vector<size_t> order(layout.buckets.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](size_t bucket) { return layout.buckets[bucket].units.begin; });
  int blocks = 0;
  for (size_t bucket : order) {
    const FlatBucket& what = layout.buckets[bucket];
    const Unit& unit = plan.workload.units[static_cast<size_t>(what.units.begin)];
    int& place = places.of_bucket[bucket];
    if (unit.kind == UnitKind::block) {
      place = blocks++ % turns;
    } else {
      place = static_cast<int>(places.elements.size());
      places.elements.push_back(0);
    }
    int64_t& elements = places.elements[static_cast<size_t>(place)];
    elements = std::max(elements, what.elements.count);
  }
  return places;
}

bool Residency::take(int bucket) {
  int& held = held_[static_cast<size_t>(places_.of_bucket[static_cast<size_t>(bucket)])];
  if (held == bucket) return false;
  held = bucket;
  return true;
}

std::vector<int64_t> units_read(const Plan& plan, Range units, bool is_forward) {
  std::vector<int64_t> read;
  for (int64_t unit = units.begin; unit < units.end(); ++unit) {
    const bool is_block = plan.workload.units[static_cast<size_t>(unit)].kind == UnitKind::block;
    if (is_forward || is_block) read.push_back(unit);
  }
  if (!is_forward) std::ranges::reverse(read);
  return read;
}

}  // namespace ptrain
