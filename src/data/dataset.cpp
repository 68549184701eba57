#include "src/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/data/jsonl.h"
#include "src/data/tokenize.h"

namespace ptrain {
namespace {

/// The files of a data set, cut where .jsonl and .h5 meet: text files that follow each other share a token
/// file.
struct Section {
  std::vector<std::filesystem::path> text;  // or
  std::filesystem::path tokens;
};

std::vector<Section> sections_of(const std::vector<std::filesystem::path>& files) {
  std::vector<Section> sections;
  for (const auto& file : files) {
    const bool is_tokens = file.extension() == ".h5";
    if (is_tokens || sections.empty() || sections.back().text.empty()) sections.emplace_back();
    if (is_tokens) {
      sections.back().tokens = file;
    } else {
      sections.back().text.push_back(file);
    }
  }
  return sections;
}

/// A collective: the same Error on all ranks where no documents were found.
void check_rows(int64_t documents, const DatasetOptions& options, Communicator& comm) {
  agreed(comm, [&] {
    check(documents > 0, ExitCode::input, "{}: {}: no rows in it", options.key,
          fmt::format("{}", fmt::join(options.files, ", ")));
  });
}

/// Where the tokens of this text, encoded so, are kept.
std::filesystem::path cache_path(const DatasetOptions& options, const TextScan& scan, uint64_t encoding) {
  return options.cache_directory / fmt::format("tokens-{:016x}-{:016x}.h5", scan.digest, encoding);
}

void say(Communicator& comm, std::string_view text) {
  if (comm.rank() == 0) log::info("{}", text);
}

std::string named(const std::vector<std::filesystem::path>& files) {
  return files.size() == 1 ? files[0].string()
                           : fmt::format("{} and {} more", files[0].string(), files.size() - 1);
}

/// This rank's view of a cached token file: its share of the checksums is looked at, each disk's file by its
/// own ranks. Nothing where there is no such file. Errors: it is damaged or of other text.
std::unique_ptr<TokenFile> look_at_cache(const std::filesystem::path& path, const TextScan& scan,
                                         uint64_t encoding, const Storage& storage) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return nullptr;
  auto file = std::make_unique<TokenFile>(path);
  check(file->info().content_digest == scan.digest && file->info().encoding_digest == encoding,
        ExitCode::input, "{}: was made of other text", path.string());
  file->verify(storage.group().rank(), storage.group().size());
  return file;
}

/// A collective: the cached token file, or nothing where there is none or a damaged one.
std::unique_ptr<TokenFile> open_cache(const std::filesystem::path& path, const TextScan& scan,
                                      uint64_t encoding, const Storage& storage) {
  Communicator& comm = storage.world();
  std::unique_ptr<TokenFile> file;
  std::string fault;
  try {
    file = look_at_cache(path, scan, encoding, storage);
  } catch (const std::exception& found) {
    fault = found.what();
  }
  // Usable only if every rank finds it so; the lowest rank that found a fault speaks.
  int64_t is_missing = file ? 0 : 1;
  int64_t speaker = fault.empty() ? comm.size() : comm.rank();
  comm.all_reduce(Tensor(&is_missing, Shape{1}, DType::i64), Reduce::max);
  comm.all_reduce(Tensor(&speaker, Shape{1}, DType::i64), Reduce::min);
  if (speaker == comm.rank()) log::warn("{} -- tokenizing again", fault);
  if (is_missing != 0) file.reset();
  return file;
}

/// A collective: the token file of some text, made now unless it is there.
std::unique_ptr<TokenFile> cached_text(const std::vector<std::filesystem::path>& paths,
                                       const DatasetOptions& options, const Encoding& encoding,
                                       const Storage& storage) {
  Communicator& comm = storage.world();
  std::unique_ptr<TextFiles> files;
  agreed(comm, [&] {
    files = std::make_unique<TextFiles>(paths);
    make_directories(options.cache_directory);
  });
  const TextScan scan = scan_text(*files, options.threads, comm);
  // What is outside the vocabulary is refused while encoding: a cache holds for the vocabulary it was made
  // for.
  const uint64_t digest =
      encoding.digest ^ static_cast<uint64_t>(options.vocabulary_size) * 0x9E3779B97F4A7C15;
  const auto path = cache_path(options, scan, digest);
  if (auto file = open_cache(path, scan, digest, storage)) {
    say(comm, fmt::format("{}: {} documents, {} tokens of {}, from {}", options.key, file->size(),
                          file->tokens(), named(paths), path.string()));
    return file;
  }
  Encoding keyed = encoding;
  keyed.digest = digest;
  const EncodeJob job{*files, scan, keyed, options.vocabulary_size, options.threads};
  const TokenTotals totals = write_tokens(job, path, storage);
  check_rows(totals.documents, options, comm);
  std::unique_ptr<TokenFile> file;
  agreed(comm, [&] { file = std::make_unique<TokenFile>(path); });
  say(comm, fmt::format("{}: {}: rows of {}, {} documents, {} tokens, kept as {}", options.key, named(paths),
                        file->info().rows, totals.documents, totals.tokens, path.string()));
  return file;
}

/// A token file that names its documents by the lines they were made of: each line that is not blank gave
/// one.
class CachedText : public DocumentSource {
 public:
  CachedText(std::unique_ptr<TokenFile> tokens, std::vector<std::filesystem::path> text)
      : tokens_(std::move(tokens)), text_(std::move(text)) {}
  int64_t size() const override { return tokens_->size(); }
  int64_t length(int64_t sample) const override { return tokens_->length(sample); }
  void read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const override {
    tokens_->read(sample, begin, ids, labels);
  }
  /// Reads the text up to there: for messages of what has gone wrong.
  std::string name(int64_t sample) const override {
    try {
      return place_of(TextFiles(text_), sample);
    } catch (const Error&) {  // the text is not there any more, or has changed
      return tokens_->name(sample);
    }
  }

 private:
  std::string place_of(const TextFiles& files, int64_t sample) const {
    int64_t documents = 0, newlines = 0;
    for (size_t i = 0; i < files.blocks().size(); ++i) {
      const TextBlock& block = files.blocks()[i];
      if (i > 0 && block.file != files.blocks()[i - 1].file) newlines = 0;
      const std::vector<Line> lines = files.lines(block, newlines).lines;
      if (sample < documents + std::ssize(lines))
        return files.where(block.file, lines[static_cast<size_t>(sample - documents)].number);
      documents += std::ssize(lines);
      newlines += files.scan(block).newlines;
    }
    return tokens_->name(sample);
  }

  std::unique_ptr<TokenFile> tokens_;
  std::vector<std::filesystem::path> text_;
};

/// The text's documents in memory: every rank encodes all of it.
std::unique_ptr<DocumentSource> text_in_memory(const std::vector<std::filesystem::path>& paths,
                                               const DatasetOptions& options, const Encoding& encoding,
                                               Communicator& comm) {
  std::unique_ptr<TextFiles> files;
  agreed(comm, [&] { files = std::make_unique<TextFiles>(paths); });
  const TextScan scan = scan_text(*files, options.threads, comm);
  std::vector<Document> documents;
  std::vector<std::string> places;
  agreed(comm, [&] {
    const EncodeJob job{*files, scan, encoding, options.vocabulary_size, options.threads};
    const auto rows =
        encode_blocks(job, 0, files->blocks().size(), [&](Document&& document, size_t file, int64_t line) {
          documents.push_back(std::move(document));
          places.push_back(files->where(file, line));
        });
    say(comm,
        fmt::format("{}: {}: rows of {}, {} documents", options.key, named(paths), rows, documents.size()));
  });
  return std::make_unique<MemoryDocuments>(std::move(documents), std::move(places));
}

std::unique_ptr<TokenFile> given_tokens(const std::filesystem::path& path, const DatasetOptions& options,
                                        const Encoding& encoding) {
  auto file = std::make_unique<TokenFile>(path);
  check(file->id_end() <= options.vocabulary_size, ExitCode::input,
        "{}: holds ids up to {}, but the model's vocabulary has {}: it was made with another tokenizer; make "
        "it "
        "anew with `ptrain preprocess`",
        path.string(), file->id_end() - 1, options.vocabulary_size);
  const TokenFileInfo& info = file->info();
  if (info.encoding_digest != encoding.digest && info.rows.find("input_ids") == std::string::npos) {
    log::warn(
        "{}: its rows of {} were made into tokens with another tokenizer, chat template or mask_prompt than "
        "this run has; they are used as they are",
        path.string(), info.rows);
  }
  return file;
}

}  // namespace

Dataset::Dataset(std::vector<std::unique_ptr<DocumentSource>> sources)
    : sources_(std::move(sources)), begin_{0} {
  for (const auto& source : sources_) begin_.push_back(begin_.back() + source->size());
}

size_t Dataset::source_of(int64_t sample) const {
  if (sources_.size() == 1) return 0;
  return static_cast<size_t>(std::upper_bound(begin_.begin(), begin_.end(), sample) - begin_.begin()) - 1;
}

int64_t Dataset::length(int64_t sample) const {
  const size_t source = source_of(sample);
  return sources_[source]->length(sample - begin_[source]);
}

void Dataset::read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const size_t source = source_of(sample);
  sources_[source]->read(sample - begin_[source], begin, ids, labels);
}

std::string Dataset::name(int64_t sample) const {
  const size_t source = source_of(sample);
  return sources_[source]->name(sample - begin_[source]);
}

namespace {

/// Each rank reads its share of the files: those of a host that has others would be mixed in.
void agree_on_files(const DatasetOptions& options, const std::vector<std::filesystem::path>& files,
                    Communicator& comm) {
  std::string mine;
  for (const auto& file : files) {
    std::error_code error;
    mine += fmt::format("{}: {} bytes\n", file.string(), std::filesystem::file_size(file, error));
  }
  agree_alike(comm, ExitCode::input, mine, [&](std::string_view first) {
    const DifferentLines lines = first_difference(mine, first);
    return fmt::format("{}: the files are not the same on all hosts: here {}, on rank 0 {}; copy them anew",
                       options.key, lines.mine.empty() ? "one is missing" : lines.mine,
                       lines.first.empty() ? "there are fewer" : lines.first);
  });
}

}  // namespace

std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options, const Encoding& encoding,
                                      const Storage& storage) {
  Communicator& comm = storage.world();
  std::vector<std::filesystem::path> files;
  agreed(comm, [&] { files = expand_files(options.files, options.key); });
  agree_on_files(options, files, comm);
  const std::vector<Section> sections = sections_of(files);
  std::vector<std::unique_ptr<DocumentSource>> sources;
  for (const Section& section : sections) {
    if (section.text.empty()) {
      agreed(comm, [&] { sources.push_back(given_tokens(section.tokens, options, encoding)); });
    } else if (options.cache_directory.empty()) {
      sources.push_back(text_in_memory(section.text, options, encoding, comm));
    } else {
      sources.push_back(
          std::make_unique<CachedText>(cached_text(section.text, options, encoding, storage), section.text));
    }
  }
  auto dataset = std::make_unique<Dataset>(std::move(sources));
  check_rows(dataset->size(), options, comm);
  return dataset;
}

TokenTotals preprocess(const DatasetOptions& options, const Encoding& encoding,
                       const std::filesystem::path& out, const Storage& storage) {
  Communicator& comm = storage.world();
  std::unique_ptr<TextFiles> files;
  agreed(comm, [&] {
    const auto paths = expand_files(options.files, options.key);
    for (const auto& path : paths) {
      check(path.extension() == ".jsonl", ExitCode::input, "{}: {}: holds tokens already", options.key,
            path.string());
    }
    files = std::make_unique<TextFiles>(paths);
    if (out.has_parent_path()) make_directories(out.parent_path());
  });
  const TextScan scan = scan_text(*files, options.threads, comm);
  const EncodeJob job{*files, scan, encoding, options.vocabulary_size, options.threads};
  const TokenTotals totals = write_tokens(job, out, storage);
  check_rows(totals.documents, options, comm);
  return totals;
}

}  // namespace ptrain
