// Work of one op cut over the threads of its rank. Not for work that must wait for other work: ranges are
// independent of each other and their bodies do not throw.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ptrain::cpu {

/// Elements below which a second thread costs more than it brings (a parallel region takes about 2 us).
inline constexpr int64_t min_elements_per_thread = 8192;

/// Calls body(begin, end) on equal ranges that tile [0, count), one a thread, each of at least `grain` items
/// and starting at a multiple of `align`. Never enters OpenMP for one range.
template <class Body>
void parallel_ranges(int threads, int64_t count, int64_t grain, int64_t align, const Body& body) {
  const int64_t blocks = (count + align - 1) / align;
  const int64_t parts = std::min({int64_t{threads}, count / std::max<int64_t>(grain, 1), blocks});
  if (parts <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(static_cast <int>(parts))
  for (int64_t part = 0; part < parts; ++part) {
    body(blocks * part / parts * align, std::min(blocks * (part + 1) / parts * align, count));
  }
}

/// The ranges of rows for a matrix with `columns` columns.
template <class Body>
void parallel_rows(int threads, int64_t rows, int64_t columns, const Body& body) {
  const int64_t grain = std::max<int64_t>(min_elements_per_thread / std::max<int64_t>(columns, 1), 1);
  parallel_ranges(threads, rows, grain, 1, body);
}

/// Calls body(task) for tasks of unequal length. Which thread takes which depends on the time they need, so a
/// task writes only what no other task touches.
template <class Body>
void parallel_tasks(int threads, int64_t count, const Body& body) {
  const int parts = static_cast<int>(std::min<int64_t>(threads, count));
  if (parts <= 1) {
    for (int64_t task = 0; task < count; ++task) body(task);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(parts)
  for (int64_t task = 0; task < count; ++task) body(task);
}

/// Calls body(chain, link) for every link of every chain: the links of a chain one after another in ascending
/// order, different chains at the same time.
template <class Body>
void parallel_chains(int threads, int64_t chains, int64_t links, const Body& body) {
  if (links == 1 || threads == 1) {
    parallel_tasks(threads, chains, [&](int64_t chain) {
      for (int64_t link = 0; link < links; ++link) body(chain, link);
    });
    return;
  }
  std::vector<char> order(static_cast<size_t>(chains));  // only its addresses matter: links wait on them
  char* marks = order.data();
#pragma omp parallel num_threads(threads)
#pragma omp single
  for (int64_t link = 0; link < links; ++link) {
    for (int64_t chain = 0; chain < chains; ++chain) {
#pragma omp task firstprivate(chain, link) depend(inout : marks[chain])
      body(chain, link);
    }
  }
  static_cast<void>(marks);
}

}  // namespace ptrain::cpu
