// A table for people: columns that line up.
#pragma once

#include <string>
#include <vector>

namespace ptrain {

class TextTable {
 public:
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  /// A line a row, indented by two; is_left[i]: column i stands to the left, others to the right.
  std::string text(const std::vector<bool>& is_left = {true}) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace ptrain
