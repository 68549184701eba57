// Random but repeatable cases for the tests of parallel/plan: numbers, meshes, a small Llama-like workload.
#pragma once

#include <random>
#include <utility>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/plan/workload.h"

namespace ptrain {

class Cases {
 public:
  explicit Cases(unsigned seed) : engine_(seed) {}

  int64_t between(int64_t lowest, int64_t highest) {
    return std::uniform_int_distribution<int64_t>(lowest, highest)(engine_);
  }
  bool coin() { return between(0, 1) == 1; }
  template <class T>
  const T& one_of(const std::vector<T>& things) {
    return things[static_cast<size_t>(between(0, static_cast<int64_t>(things.size()) - 1))];
  }

 private:
  std::mt19937 engine_;
};

struct ToySizes {
  int64_t V = 199, C = 48, L = 4, H = 6, K = 2, D = 8, F = 104;
};

enum class Tied { no, on_one_stage, apart };

/// A Llama-like model as the plan sees it: embedding, L blocks, head.
inline Workload toy_workload(const ToySizes& sizes, Tied tied = Tied::no) {
  const auto [V, C, L, H, K, D, F] = sizes;
  const Layout heads{.splits = {{.dim = 0, .unit = D}}};
  const Layout kv_heads{.splits = {{.dim = 0, .unit = D, .group = H / K}}};
  const Layout rows{.splits = {{.dim = 0}}};
  const Layout columns{.splits = {{.dim = 1}}};
  const auto piece = [](std::string name, Shape shape, Layout layout, int fusion = 0) {
    return UnitPiece{.piece = {.name = std::move(name), .shape = shape, .layout = std::move(layout)},
                     .fusion = fusion};
  };
  Workload workload;
  workload.name = "toy";
  workload.heads = H;
  workload.boundary = {{.name = "x", .columns = C, .rows = Rows::share}};
  workload.units.push_back({.name = "embedding", .kind = UnitKind::embedding});
  workload.units[0].pieces = {piece("embedding", {V, C}, rows)};
  for (int64_t block = 0; block < L; ++block) {
    const std::string prefix = fmt::format("{}.", block);
    Unit unit{.name = fmt::format("block {}", block)};
    const int fusion = static_cast<int>(2 * block) + 1;
    unit.pieces = {piece(prefix + "norm", {C}, {.splits = {}, .has_partial_gradients = true}),
                   piece(prefix + "q", {H * D, C}, heads, fusion),
                   piece(prefix + "k", {K * D, C}, kv_heads, fusion),
                   piece(prefix + "v", {K * D, C}, kv_heads, fusion),
                   piece(prefix + "o", {C, H * D}, {.splits = {{.dim = 1, .unit = D}}}),
                   piece(prefix + "gate", {F, C}, rows, fusion + 1),
                   piece(prefix + "up", {F, C}, rows, fusion + 1),
                   piece(prefix + "down", {C, F}, columns)};
    unit.forward_flops = 2.0 * static_cast<double>(2 * C * D * (H + K) + 3 * C * F);
    unit.backward_flops = 2 * unit.forward_flops;
    unit.kept = {{.name = "x", .columns = C, .rows = Rows::share},
                 {.name = "q", .columns = H * D, .split = Split{.dim = 0, .unit = D}},
                 {.name = "k", .columns = K * D, .split = Split{.dim = 0, .unit = D, .group = H / K}}};
    unit.scratch = {{.name = "act", .columns = F, .split = Split{.dim = 0}}};
    unit.collectives = {{.name = "out", .columns = C}, {.name = "in", .is_backward = true, .columns = C}};
    workload.units.push_back(std::move(unit));
  }
  Unit head{.name = "head", .kind = UnitKind::head};
  head.pieces = {piece("final_norm", {C}, {.splits = {}, .has_partial_gradients = true})};
  if (tied == Tied::no) head.pieces.push_back(piece("head", {V, C}, rows));
  head.forward_flops = 2.0 * static_cast<double>(V * C);
  head.backward_flops = 2 * head.forward_flops;
  workload.units.push_back(std::move(head));
  if (tied == Tied::apart) {
    workload.units.push_back({.name = "tied table", .kind = UnitKind::table});
    workload.units.back().pieces = {piece("embedding", {V, C}, rows)};
    workload.units.back().pieces.back().is_tied_copy = true;
  }
  return workload;
}

}  // namespace ptrain
