// ptrain tokenize: lines of text to lines of ids, and back. Needs nothing of a model but its tokenizer.
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>

#include <fmt/ranges.h>

#include "launch/verbs.h"
#include "src/data/jsonl.h"
#include "src/data/row_encoding.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

struct Job {
  const Tokenizer& tokenizer;
  Special special;
  bool decodes;
};

void put(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int32_t known_id(const Tokenizer& tokenizer, int64_t id, std::string_view where) {
  check(id >= 0 && id < tokenizer.size(), ExitCode::input, "{}: {} is no id of this tokenizer (0 to {})",
        where, id, tokenizer.size() - 1);
  return static_cast<int32_t>(id);
}

/// What decode() leaves out: what encode() added, so that both are each other's reverse.
Skip skip_of(const Job& job) {
  return job.special == Special::add ? Skip::special : Skip::none;
}

/// "12 7  99" as ids.
std::vector<int32_t> parse_ids(const Tokenizer& tokenizer, std::string_view line, std::string_view where) {
  std::vector<int32_t> ids;
  for (size_t at = 0; (at = line.find_first_not_of(" \t\r", at)) != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(" \t\r", at), line.size());
    int64_t id = 0;
    const auto [stop, error] = std::from_chars(line.data() + at, line.data() + end, id);
    check(error == std::errc() && stop == line.data() + end, ExitCode::input, "{}: \"{}\" is not an id",
          where, line.substr(at, end - at));
    ids.push_back(known_id(tokenizer, id, where));
    at = end;
  }
  return ids;
}

void tokenize_text(const Job& job, std::istream& in, std::string_view name) {
  std::string line;
  std::vector<int32_t> ids;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (job.decodes) {
      ids = parse_ids(job.tokenizer, line, fmt::format("{}:{}", name, number));
      put(job.tokenizer.decode(ids, skip_of(job)) + "\n");
    } else {
      ids.clear();
      job.tokenizer.encode_to(line, job.special, ids);
      put(fmt::format("{}\n", fmt::join(ids, " ")));
    }
  }
  check(!in.bad(), ExitCode::input, "{}: cannot be read", name);
}

/// The line of output for a row: ids of its text, or the text of its ids.
std::string row_line(const Job& job, const Json& row, std::string_view where) {
  if (!job.decodes) {
    check(row.is_object(), ExitCode::input, "{}: a row is {}, expected an object with \"text\"", where,
          kind_of(row));
    const auto text = required<std::string>(row, "text", where);
    return fmt::format("[{}]\n", fmt::join(job.tokenizer.encode(text, job.special), ", "));
  }
  const Json& list = row.is_object() && row.contains("input_ids") ? row.at("input_ids") : row;
  check(list.is_array(), ExitCode::input,
        "{}: a row is {}, expected an array of ids or an object with \"input_ids\"", where, kind_of(list));
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    ids.push_back(known_id(job.tokenizer, json_cast<int64_t>(id, "input_ids", where), where));
  }
  return Json{{"text", job.tokenizer.decode(ids, skip_of(job))}}.dump(-1, ' ', true) + "\n";  // in ASCII
}

void tokenize_rows(const Job& job, const std::filesystem::path& path) {
  const TextFiles files({path});
  int64_t newlines = 0;
  for (const TextBlock& block : files.blocks()) {
    for (const Line& line : files.lines(block, newlines).lines) {
      const std::string where = files.where(block.file, line.number);
      put(row_line(job, parse_row(line.text, where), where));
    }
    newlines += files.scan(block).newlines;
  }
}

}  // namespace

int run_tokenize(const Arguments& arguments) {
  const auto tokenizer = Tokenizer::load(arguments.required("model"));
  const Job job{*tokenizer, arguments.has("no-special") ? Special::none : Special::add,
                arguments.has("decode")};
  const std::string path = arguments.words.empty() ? "-" : arguments.words[0];
  if (path.ends_with(".jsonl")) {
    tokenize_rows(job, path);
  } else if (path == "-") {
    tokenize_text(job, std::cin, "standard input");
  } else {
    check(std::filesystem::is_regular_file(path), ExitCode::input, "{}: no such file", path);
    std::ifstream file(path, std::ios::binary);
    check(file.good(), ExitCode::input, "{}: cannot be opened", path);
    tokenize_text(job, file, path);
  }
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, ExitCode::resources,
        "standard output: cannot be written");
  return 0;
}

}  // namespace ptrain
