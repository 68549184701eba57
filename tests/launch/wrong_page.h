// docs/wrong_runs.md: its tables are made from those of the tests, each between two comments that name it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "src/io/file.h"

namespace ptrain {

using PageRow = std::vector<std::string>;  // its cells

/// What a test looks for in a message, as a cell: without the test's directory, "…" between fragments.
inline std::string shown_message(const std::vector<std::string>& fragments) {
  std::string text;
  for (const std::string& fragment : fragments) {
    const size_t from = fragment.find_first_not_of(' ');
    text += (text.empty() ? "" : " … ") + fragment.substr(from, fragment.find_last_not_of(' ') + 1 - from);
  }
  for (const char* root : {"{root}/", "$root/"})
    for (size_t at = text.find(root); at != std::string::npos; at = text.find(root))
      text.erase(at, std::string_view(root).size());
  const char* quotes = text.find('`') == std::string::npos ? "`" : "``";
  return text.empty() ? "" : quotes + text + quotes;
}

inline std::string table_text(const PageRow& head, const std::vector<PageRow>& rows) {
  std::string text = "\n";
  const auto add = [&](const PageRow& row) {
    text += "|";
    for (std::string cell : row) {
      for (size_t at = cell.find('|'); at != std::string::npos; at = cell.find('|', at + 2))
        cell.insert(at, "\\");
      text += " " + cell + " |";
    }
    text += "\n";
  };
  add(head);
  add(PageRow(head.size(), "---"));
  for (const PageRow& row : rows) add(row);
  return text + "\n";
}

/// The section of the page is that table. With PTRAIN_WRITE_DOCS set it becomes it.
inline void expect_on_page(const std::string& section, const PageRow& head,
                           const std::vector<PageRow>& rows) {
  const std::filesystem::path path = std::filesystem::path(PTRAIN_SOURCE) / "docs/wrong_runs.md";
  std::string page = read_text(path, 1 << 20);
  const std::string begin = "<!-- table: " + section + " -->\n";
  const std::string end = "<!-- end: " + section + " -->\n";
  const size_t from = page.find(begin) + begin.size();
  const size_t to = page.find(end);
  ASSERT_TRUE(from >= begin.size() && to != std::string::npos && from <= to) << "no section " << section;
  const std::string wanted = table_text(head, rows);
  if (std::getenv("PTRAIN_WRITE_DOCS") != nullptr) {
    page.replace(from, to - from, wanted);
    write_text(path, page);
    return;
  }
  EXPECT_EQ(page.substr(from, to - from), wanted)
      << "run this program with PTRAIN_WRITE_DOCS=1 and --gtest_filter=*ThePage*";
}

}  // namespace ptrain
