// A buying guide: what a training run costs on instances that a cloud rents out, at the user's prices. Pure;
// no price is known here.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/plan/choose.h"

namespace ptrain {

struct Price {
  std::string name;  // as the user wrote it: "ml.p4d.24xlarge"
  InstanceKind kind;
  double per_hour = 0;  // of one instance, in the user's currency
};

/// So many instances of a kind, the fastest grid found on them, and what it costs.
struct Offer {
  Price price;
  int instances = 0;
  Judged judged;  // does_fit is false where no number of instances tried does
  double tokens_per_s = 0;
  double hours = 0;  // for the tokens asked for
  double cost = 0;
};

struct GuideRequest {
  ParallelConfig from;  // model, batch and choices; its grid does not matter
  const Workload* workload = nullptr;
  int ranks = 1;      // to look at besides the cheapest
  double tokens = 0;  // to train on
};

/// For each price the cheapest number of instances out of 1, 2, 4, …, as many as the ranks asked for or,
/// where that is not enough, the first that fits; and the number that has those ranks, where it is another.
/// On every grid the least of: as configured, recompute, ZeRO 2, ZeRO 3, ZeRO 3 and recompute, that fits.
/// Sorted by cost; what does not fit comes last.
std::vector<Offer> buying_guide(const GuideRequest& request, std::span<const Price> prices,
                                const PlanMaker& make);

/// `tokens_are`: what the tokens are, for the head of the table: "an epoch of 1,000,000 tokens".
std::string print_guide(const GuideRequest& request, std::span<const Offer> offers,
                        const std::string& tokens_are);

}  // namespace ptrain
