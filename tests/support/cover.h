// A small part of a product of choices in which still every pair of values comes that comes in the whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace ptrain {

/// A case, as one number for each choice; all cases of a product have the same choices in the same order.
using Choices = std::vector<int>;

/// Which values must come: each alone, or each pair of values of two choices.
enum class Cover { values, pairs };

/// (choice a, its value, choice b, its value), a < b; of single values a == b.
using ChoicePair = std::tuple<int, int, int, int>;

inline std::vector<ChoicePair> pairs_in(const Choices& row, Cover cover) {
  std::vector<ChoicePair> pairs;
  const int choices = static_cast<int>(row.size());
  for (int a = 0; a < choices; ++a) {
    const int value = row[static_cast<size_t>(a)];
    if (cover == Cover::values) pairs.emplace_back(a, value, a, value);
    for (int b = a + 1; b < choices && cover == Cover::pairs; ++b)
      pairs.emplace_back(a, value, b, row[static_cast<size_t>(b)]);
  }
  return pairs;
}

inline std::set<ChoicePair> pairs_of(const std::vector<Choices>& rows, Cover cover) {
  std::set<ChoicePair> all;
  for (const Choices& row : rows) {
    for (const ChoicePair& pair : pairs_in(row, cover)) all.insert(pair);
  }
  return all;
}

/// Indices of cases that hold all that `rows` hold together, in the order of their choosing: always the case
/// that brings the most that is new, the first of several (Cohen et al., "The AETG system", 1997). The same
/// rows give the same cases.
inline std::vector<size_t> cover_of(const std::vector<Choices>& rows, Cover cover) {
  std::map<ChoicePair, size_t> numbers;
  std::vector<std::vector<size_t>> holds;
  for (const Choices& row : rows) {
    std::vector<size_t>& held = holds.emplace_back();
    for (const ChoicePair& pair : pairs_in(row, cover))
      held.push_back(numbers.try_emplace(pair, numbers.size()).first->second);
  }
  std::vector<bool> is_new(numbers.size(), true);
  std::vector<size_t> chosen;
  for (;;) {
    size_t best = 0;
    std::ptrdiff_t most = 0;
    for (size_t row = 0; row < rows.size(); ++row) {
      const std::ptrdiff_t brings =
          std::ranges::count_if(holds[row], [&](size_t pair) { return is_new[pair]; });
      if (brings <= most) continue;
      most = brings;
      best = row;
    }
    if (most == 0) return chosen;
    for (size_t pair : holds[best]) is_new[pair] = false;
    chosen.push_back(best);
  }
}

}  // namespace ptrain
