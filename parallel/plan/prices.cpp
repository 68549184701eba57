#include "parallel/plan/prices.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/advice.h"
#include "parallel/plan/print.h"
#include "parallel/plan/text_table.h"

namespace ptrain {
namespace {

constexpr int most_gpus = 4096;

/// What saves memory, the cheapest in time first.
std::optional<Judged> least_that_fits(const ParallelConfig& grid, const PlanMaker& make,
                                      const Hardware& hardware) {
  std::optional<Judged> found;
  const auto does_fit = [&](std::optional<Judged> judged) {
    found = std::move(judged);
    return found && found->does_fit;
  };
  if (does_fit(judge(grid, make, hardware))) return found;
  if (does_fit(with_least_recompute(grid, make, hardware))) return found;
  for (const int zero : {2, 3}) {
    if (zero <= grid.zero) continue;
    ParallelConfig sharded = grid;
    sharded.zero = zero;
    if (does_fit(judge(sharded, make, hardware))) return found;
    if (zero == 3 && does_fit(with_least_recompute(sharded, make, hardware))) return found;
  }
  return std::nullopt;
}

/// The fastest that fits on so many instances.
std::optional<Offer> offer_of(const GuideRequest& request, const Price& price, int instances,
                              const PlanMaker& make) {
  const Hardware hardware = hardware_of(price.kind);
  std::optional<Judged> best;
  for (const ParallelConfig& grid :
       grids_of(request.from, instances * price.kind.gpus, *request.workload, hardware)) {
    const auto judged = least_that_fits(grid, make, hardware);
    if (judged && (!best || judged->step_s < best->step_s)) best = judged;
  }
  if (!best) return std::nullopt;
  Offer offer{.price = price, .instances = instances, .judged = *best};
  const double tokens_a_step = static_cast<double>(best->parallel.global * best->parallel.sequence_length);
  offer.tokens_per_s = tokens_a_step / best->step_s;
  offer.hours = request.tokens / offer.tokens_per_s / 3600;
  offer.cost = offer.hours * instances * price.per_hour;
  return offer;
}

std::string time_text(double hours) {
  return hours < 1    ? fmt::format("{:.0f} min", 60 * hours)
         : hours < 48 ? fmt::format("{:.1f} h", hours)
                      : fmt::format("{:.1f} days", hours / 24);
}

std::string money_text(double cost) {
  return cost < 100 ? fmt::format("{:.2f}", cost) : with_commas(static_cast<int64_t>(cost + 0.5));
}

std::string grid_text(const ParallelConfig& parallel) {
  std::string text =
      fmt::format("tensor {} x pipeline {} x data {}", parallel.tensor, parallel.pipeline, parallel.data);
  text += fmt::format(", {}, ZeRO {}", schedule_text(parallel), parallel.zero);
  if (parallel.recompute != Recompute::none) text += ", recompute " + recompute_text(parallel);
  return text;
}

}  // namespace

std::vector<Offer> buying_guide(const GuideRequest& request, std::span<const Price> prices,
                                const PlanMaker& make) {
  std::vector<Offer> offers;
  for (const Price& price : prices) {
    // 1. The cheapest of 1, 2, 4, … instances up to the ranks asked for, or the first that fits.
    const int asked = (request.ranks + price.kind.gpus - 1) / price.kind.gpus;
    std::optional<Offer> cheapest;
    for (int instances = 1; instances * price.kind.gpus <= most_gpus; instances *= 2) {
      if (instances > asked && cheapest) break;
      const auto offer = offer_of(request, price, instances, make);
      if (offer && (!cheapest || offer->cost < cheapest->cost)) cheapest = offer;
    }
    if (!cheapest) {
      offers.push_back({.price = price});
      continue;
    }
    offers.push_back(*cheapest);
    // 2. As many as were asked for.
    if (asked == cheapest->instances) continue;
    if (const auto offer = offer_of(request, price, asked, make)) offers.push_back(*offer);
  }
  std::ranges::stable_sort(offers, {},
                           [](const Offer& offer) { return std::pair(!offer.judged.does_fit, offer.cost); });
  return offers;
}

std::string print_guide(const GuideRequest& request, std::span<const Offer> offers,
                        const std::string& tokens_are) {
  std::string text =
      fmt::format("\nBuying guide: {}, by the cost of {}\n", request.workload->name, tokens_are);
  TextTable table;
  table.add({"instances", "GPUs", "grid", "tokens/s", "time", "an hour", "cost"});
  for (const Offer& offer : offers) {
    if (!offer.judged.does_fit) {
      table.add({offer.price.name, "-", fmt::format("does not fit on up to {} GPUs", most_gpus), "", "",
                 money_text(offer.price.per_hour), "-"});
      continue;
    }
    table.add({fmt::format("{} x {}", offer.instances, offer.price.name),
               fmt::format("{} x {}", offer.instances * offer.price.kind.gpus, offer.price.kind.hardware),
               grid_text(offer.judged.parallel), with_commas(static_cast<int64_t>(offer.tokens_per_s)),
               time_text(offer.hours), money_text(offer.instances * offer.price.per_hour),
               money_text(offer.cost)});
  }
  return text + table.text({true, true, true}) +
         "  Estimates at the prices given; starting, saving and idle time are not in them.\n";
}

}  // namespace ptrain
