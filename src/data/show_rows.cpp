#include "src/data/show_rows.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <span>

#include "src/data/jsonl.h"
#include "src/data/tokenize.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// '+' learned as it is, '.' only read, '*' learned as something else.
char kind_of_token(const Document& document, size_t t) {
  if (t == 0 || document.labels[t] == not_supervised) return '.';
  return document.labels[t] == document.ids[t] ? '+' : '*';
}

std::string text_of(std::span<const int32_t> ids, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return fmt::format("{}", fmt::join(ids, " "));
  return Json(tokenizer->decode(ids, Skip::none)).dump();
}

void take_text(const std::filesystem::path& path, const DatasetOptions& options, const Encoding& encoding,
               size_t count, std::vector<ShownDocument>& out) {
  const TextFiles files({path});
  TextScan scan;
  scan.newlines_before.assign(files.blocks().size(), 0);
  int64_t newlines = 0;
  for (size_t i = 0; i < files.blocks().size() && out.size() < count; ++i) {
    scan.newlines_before[i] = newlines;
    newlines += files.scan(files.blocks()[i]).newlines;
    const EncodeJob job{files, scan, encoding, options.vocabulary_size, options.threads};
    encode_blocks(job, i, i + 1, [&](Document&& document, size_t file, int64_t line) {
      if (out.size() < count) out.push_back({std::move(document), files.where(file, line)});
    });
  }
}

void take_tokens(const std::filesystem::path& path, size_t count, std::vector<ShownDocument>& out) {
  const TokenFile file(path);
  for (int64_t i = 0; i < file.size() && out.size() < count; ++i) {
    const auto length = static_cast<size_t>(file.length(i));
    Document document{std::vector<int32_t>(length), std::vector<int32_t>(length)};
    file.read(i, 0, document.ids, document.labels);
    out.push_back({std::move(document), file.name(i)});
  }
}

}  // namespace

std::vector<ShownDocument> first_documents(const DatasetOptions& options, const Encoding& encoding,
                                           int64_t count) {
  std::vector<ShownDocument> out;
  const auto most = static_cast<size_t>(std::max<int64_t>(count, 0));
  for (const auto& path : expand_files(options.files, options.key)) {
    if (out.size() >= most) break;
    if (path.extension() == ".h5") {
      take_tokens(path, most, out);
    } else {
      take_text(path, options, encoding, most, out);
    }
  }
  return out;
}

std::string show(const ShownDocument& shown, const Tokenizer* tokenizer) {
  const Document& document = shown.document;
  const size_t length = document.ids.size();
  int64_t supervised = 0;
  for (size_t t = 0; t < length; ++t) supervised += kind_of_token(document, t) != '.';
  std::string text = fmt::format("{}: {} tokens, {} supervised\n", shown.where, length, supervised);
  for (size_t begin = 0, end = 0; begin < length; begin = end) {
    const char kind = kind_of_token(document, begin);
    while (end < length && kind_of_token(document, end) == kind) ++end;
    text +=
        fmt::format("  {} {}", kind, text_of(std::span(document.ids).subspan(begin, end - begin), tokenizer));
    if (kind == '*') {
      text +=
          fmt::format(" -> {}", text_of(std::span(document.labels).subspan(begin, end - begin), tokenizer));
    }
    text += '\n';
  }
  return text;
}

}  // namespace ptrain
