// The sum of some vectors as a tree, the plain way: level by level, neighbours in pairs, a leftover passes
// up.
#pragma once

#include <utility>
#include <vector>

namespace ptrain {

/// addends: at least one, of equal length
template <class T>
std::vector<T> sum_tree(std::vector<std::vector<T>> addends) {
  while (addends.size() > 1) {
    std::vector<std::vector<T>> level;
    for (size_t i = 0; i < addends.size(); i += 2) {
      level.push_back(std::move(addends[i]));
      if (i + 1 == addends.size()) continue;
      for (size_t e = 0; e < level.back().size(); ++e) level.back()[e] += addends[i + 1][e];
    }
    addends = std::move(level);
  }
  return addends[0];
}

}  // namespace ptrain
