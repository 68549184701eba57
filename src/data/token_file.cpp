#include "src/data/token_file.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "src/io/hdf5.h"

namespace ptrain {
namespace {

constexpr std::string_view format_name = "ptrain token documents";
constexpr int64_t format_version = 1;
constexpr int64_t block_bytes = int64_t{256} << 10;  // under one checksum
constexpr size_t spill_buffer = size_t{1} << 18;     // numbers
constexpr int64_t max_document = int64_t{1} << 31;   // tokens of one document, exclusive
constexpr std::array supervision_names = {"all", "mask", "labels"};

int64_t blocks_of(int64_t bytes) {
  return (bytes + block_bytes - 1) / block_bytes;
}

std::string hex(uint64_t value) {
  return fmt::format("{:016x}", value);
}

/// Appends to a dataset's extent and notes the checksum of each block.
class ExtentWriter {
 public:
  ExtentWriter(const File& file, const Hdf5Dataset& dataset) : file_(file), at_(dataset.offset) {}

  void append(const void* data, size_t bytes) {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const size_t now = std::min(bytes, static_cast<size_t>(block_bytes) - block_.size());
      block_.insert(block_.end(), from, from + now);
      from += now;
      bytes -= now;
      if (static_cast<int64_t>(block_.size()) == block_bytes) finish();
    }
  }
  void finish() {
    if (block_.empty()) return;
    file_.write_at(at_, block_.data(), static_cast<int64_t>(block_.size()));
    checksums_.push_back(crc32c(block_.data(), block_.size()));
    at_ += static_cast<int64_t>(block_.size());
    block_.clear();
  }
  const std::vector<int64_t>& checksums() const { return checksums_; }

 private:
  const File& file_;
  int64_t at_;
  std::vector<char> block_;
  std::vector<int64_t> checksums_;
};

/// Reads a spill front to back.
class SpillReader {
 public:
  explicit SpillReader(const std::filesystem::path& path) : file_(File::open(path)) {}

  bool next(Document& document) {
    if (at_ == file_.bytes()) return false;
    int32_t length = 0;
    take(&length, 1);
    check(length >= 0, "{}: a document of {} tokens", file_.path().string(), length);
    document.ids.resize(static_cast<size_t>(length));
    document.labels.resize(static_cast<size_t>(length));
    take(document.ids.data(), document.ids.size());
    take(document.labels.data(), document.labels.size());
    return true;
  }

 private:
  void take(int32_t* out, size_t count) {
    while (count > 0) {
      if (next_ == buffer_.size()) fill();
      const size_t now = std::min(count, buffer_.size() - next_);
      std::copy_n(buffer_.begin() + static_cast<int64_t>(next_), now, out);
      next_ += now;
      at_ += static_cast<int64_t>(now * sizeof(int32_t));
      out += now;
      count -= now;
    }
  }
  void fill() {
    const int64_t numbers = std::min((file_.bytes() - at_) / 4, static_cast<int64_t>(spill_buffer));
    check(numbers > 0, "{}: ends within a document", file_.path().string());
    buffer_.resize(static_cast<size_t>(numbers));
    file_.read_at(at_, buffer_.data(), numbers * 4);
    next_ = 0;
  }

  File file_;
  int64_t at_ = 0;  // bytes given out
  std::vector<int32_t> buffer_;
  size_t next_ = 0;
};

struct Layout {
  Hdf5Dataset offsets, ids, labels, checksums;
};

Layout lay_out(const std::filesystem::path& path, const TokenTotals& totals, const TokenFileInfo& info) {
  const Supervision supervision = totals.supervision();
  const int64_t label_bytes = supervision == Supervision::all ? 0 : supervision == Supervision::mask ? 1 : 4;
  Hdf5Writer writer(path);
  writer.set("format", format_name);
  writer.set("version", format_version);
  writer.set("documents", totals.documents);
  writer.set("tokens", totals.tokens);
  writer.set("supervised_tokens", totals.supervised);
  writer.set("id_end", totals.id_end);
  writer.set("supervision", supervision_names[static_cast<size_t>(supervision)]);
  writer.set("content_digest", hex(info.content_digest));
  writer.set("encoding_digest", hex(info.encoding_digest));
  writer.set("rows", info.rows);
  Layout layout;
  layout.offsets = writer.add("offsets", DType::i64, {totals.documents + 1});
  layout.ids = writer.add("ids", DType::i32, {totals.tokens});
  if (supervision == Supervision::mask) layout.labels = writer.add("supervised", DType::u8, {totals.tokens});
  if (supervision == Supervision::labels) layout.labels = writer.add("labels", DType::i32, {totals.tokens});
  const int64_t blocks = blocks_of(layout.offsets.bytes()) + blocks_of(layout.ids.bytes()) +
                         blocks_of(totals.tokens * label_bytes);
  layout.checksums = writer.add("checksums", DType::i64, {blocks});
  writer.close();
  return layout;
}

/// Removes a file that was not renamed to its real name.
struct RemovedUnlessKept {
  std::filesystem::path path;
  ~RemovedUnlessKept() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove(path, ignored);
  }
};

}  // namespace

void TokenTotals::add(const TokenTotals& more) {
  documents += more.documents;
  tokens += more.tokens;
  supervised += more.supervised;
  id_end = std::max(id_end, more.id_end);
  unsupervised += more.unsupervised;
  other_labels += more.other_labels;
}

Supervision TokenTotals::supervision() const {
  if (other_labels > 0) return Supervision::labels;
  return unsupervised > 0 ? Supervision::mask : Supervision::all;
}

// ---- writing ----

TokenSpill::TokenSpill(std::filesystem::path path) : path_(std::move(path)), file_(File::create(path_, 0)) {}

TokenSpill::~TokenSpill() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

void TokenSpill::add(const Document& document) {
  const auto length = static_cast<int64_t>(document.ids.size());
  check(document.labels.size() == document.ids.size(), "{} ids with {} labels", length,
        document.labels.size());
  check(length < max_document, ExitCode::input, "a document of {} tokens", length);
  for (size_t t = 0; t < document.ids.size(); ++t) {
    const int32_t label = document.labels[t];
    totals_.unsupervised += label == not_supervised;
    totals_.other_labels += label != not_supervised && label != document.ids[t];
    totals_.supervised += t > 0 && label != not_supervised;
    totals_.id_end = std::max<int64_t>({totals_.id_end, int64_t{document.ids[t]} + 1, int64_t{label} + 1});
  }
  totals_.documents += 1;
  totals_.tokens += length;
  buffer_.push_back(static_cast<int32_t>(length));
  buffer_.insert(buffer_.end(), document.ids.begin(), document.ids.end());
  buffer_.insert(buffer_.end(), document.labels.begin(), document.labels.end());
  if (buffer_.size() >= spill_buffer) flush();
}

void TokenSpill::flush() {
  const auto bytes = static_cast<int64_t>(buffer_.size() * sizeof(int32_t));
  file_.write_at(end_, buffer_.data(), bytes);
  end_ += bytes;
  buffer_.clear();
}

void TokenSpill::finish() {
  flush();
  file_.close();  // on a network file system others see the bytes from here on
}

void write_token_file(const std::filesystem::path& path, std::span<const std::filesystem::path> spills,
                      const TokenTotals& totals, const TokenFileInfo& info) {
  RemovedUnlessKept temporary{path.string() + ".tmp"};
  const Layout layout = lay_out(temporary.path, totals, info);
  File file = File::open_for_writing(temporary.path);
  ExtentWriter offsets(file, layout.offsets);
  ExtentWriter ids(file, layout.ids);
  ExtentWriter labels(file, layout.labels);
  const Supervision supervision = totals.supervision();
  int64_t end = 0;  // of the documents so far, in tokens
  offsets.append(&end, sizeof end);
  std::vector<uint8_t> mask;
  for (const auto& spill : spills) {
    SpillReader reader(spill);
    for (Document document; reader.next(document);) {
      end += static_cast<int64_t>(document.ids.size());
      check(end <= totals.tokens, "{}: more than the {} tokens that were counted", spill.string(),
            totals.tokens);
      offsets.append(&end, sizeof end);
      ids.append(document.ids.data(), document.ids.size() * sizeof(int32_t));
      if (supervision == Supervision::labels) {
        labels.append(document.labels.data(), document.labels.size() * sizeof(int32_t));
      } else if (supervision == Supervision::mask) {
        mask.clear();
        for (const int32_t label : document.labels) mask.push_back(label != not_supervised);
        labels.append(mask.data(), mask.size());
      }
    }
  }
  check(end == totals.tokens, "{} tokens written, {} counted", end, totals.tokens);
  std::vector<int64_t> checksums;
  for (ExtentWriter* extent : {&offsets, &ids, &labels}) {
    extent->finish();
    checksums.insert(checksums.end(), extent->checksums().begin(), extent->checksums().end());
  }
  check(static_cast<int64_t>(checksums.size()) == layout.checksums.shape[0], "{} checksums, room for {}",
        checksums.size(), layout.checksums.shape[0]);
  file.write_at(layout.checksums.offset, checksums.data(), layout.checksums.bytes());
  file.sync();
  file.close();
  rename_path(temporary.path, path);
  temporary.path.clear();
  sync_directory(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

// ---- reading ----

void TokenFile::damaged(std::string_view what) const {
  fail(ExitCode::input, "{}: {}: the file is damaged; make it anew with `ptrain preprocess`", path().string(),
       what);
}

TokenFile::TokenFile(const std::filesystem::path& path) : file_(File::open(path)) {
  const Hdf5Reader reader(path);
  const std::string where = path.string();
  check(reader.has_attribute("format") && reader.text("format") == format_name, ExitCode::input,
        "{}: an HDF5 file, but not one that `ptrain preprocess` made", where);
  check(reader.integer("version") == format_version, ExitCode::input,
        "{}: version {} of token files; this program reads version {}: make it anew with `ptrain preprocess`",
        where, reader.integer("version"), format_version);
  const auto digest = [&](std::string_view attribute) {
    const std::string text = reader.text(attribute);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc() || text.size() != 16) damaged(fmt::format("{} is \"{}\"", attribute, text));
    return value;
  };
  info_ = {digest("content_digest"), digest("encoding_digest"), reader.text("rows")};
  const auto kind = std::find(supervision_names.begin(), supervision_names.end(), reader.text("supervision"));
  if (kind == supervision_names.end()) damaged("its kind of supervision is not known");
  supervision_ = static_cast<Supervision>(kind - supervision_names.begin());
  const int64_t documents = reader.integer("documents");
  const int64_t tokens = reader.integer("tokens");
  supervised_ = reader.integer("supervised_tokens");
  id_end_ = reader.integer("id_end");
  if (id_end_ < 0 || id_end_ > int64_t{1} << 31 || supervised_ < 0 || supervised_ > tokens || documents < 0) {
    damaged("its counts contradict each other");
  }

  int64_t blocks = 0;
  const auto extent = [&](std::string_view name, DType dtype, int64_t length) {
    const Hdf5Dataset dataset = reader.dataset(name);
    if (dataset.dtype != dtype || dataset.shape != Shape{length}) {
      damaged(fmt::format("dataset {} is {} {}, not ({}) {}", name, to_string(dataset.shape),
                          name_of(dataset.dtype), length, name_of(dtype)));
    }
    const Extent out{dataset.offset, dataset.bytes(), blocks};
    blocks += blocks_of(out.bytes);
    return out;
  };
  if (documents == std::numeric_limits<int64_t>::max()) damaged("its counts contradict each other");
  offsets_extent_ = extent("offsets", DType::i64, documents + 1);
  ids_ = extent("ids", DType::i32, tokens);
  if (supervision_ == Supervision::mask) labels_ = extent("supervised", DType::u8, tokens);
  if (supervision_ == Supervision::labels) labels_ = extent("labels", DType::i32, tokens);
  const int64_t expected = blocks;
  const Extent sums = extent("checksums", DType::i64, expected);
  std::vector<int64_t> checksums(static_cast<size_t>(expected));
  file_.read_at(sums.offset, checksums.data(), sums.bytes);
  for (const int64_t sum : checksums) {
    if (sum < 0 || sum > std::numeric_limits<uint32_t>::max()) damaged("its checksums are no checksums");
    checksums_.push_back(static_cast<uint32_t>(sum));
  }
  is_verified_ = std::vector<std::atomic<uint64_t>>((checksums_.size() + 63) / 64);
  load_offsets(tokens);
}

void TokenFile::load_offsets(int64_t tokens) {
  offsets_.resize(static_cast<size_t>(offsets_extent_.bytes / 8));
  read_extent(offsets_extent_, 0, offsets_.data(), offsets_extent_.bytes);
  bool is_good = offsets_.front() == 0 && offsets_.back() == tokens;
  for (size_t i = 1; is_good && i < offsets_.size(); ++i) {
    is_good = offsets_[i] >= offsets_[i - 1] && offsets_[i] - offsets_[i - 1] < max_document;
  }
  if (!is_good) damaged("the places of its documents contradict each other");
}

void TokenFile::verify_block(const Extent& extent, int64_t block) const {
  const auto index = static_cast<size_t>(extent.first_block + block);
  std::atomic<uint64_t>& word = is_verified_[index / 64];
  const uint64_t bit = uint64_t{1} << (index % 64);
  if (word.load(std::memory_order_relaxed) & bit) return;
  const int64_t begin = block * block_bytes;
  std::vector<char> bytes(static_cast<size_t>(std::min(block_bytes, extent.bytes - begin)));
  file_.read_at(extent.offset + begin, bytes.data(), static_cast<int64_t>(bytes.size()));
  if (crc32c(bytes.data(), bytes.size()) != checksums_[index]) {
    damaged(fmt::format("bytes {} to {} do not have the checksum that was written with them",
                        extent.offset + begin, extent.offset + begin + static_cast<int64_t>(bytes.size())));
  }
  word.fetch_or(bit, std::memory_order_relaxed);
}

void TokenFile::read_extent(const Extent& extent, int64_t begin, void* out, int64_t bytes) const {
  if (bytes == 0) return;
  for (int64_t block = begin / block_bytes; block <= (begin + bytes - 1) / block_bytes; ++block) {
    verify_block(extent, block);
  }
  file_.read_at(extent.offset + begin, out, bytes);
}

void TokenFile::read(int64_t sample, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const auto count = static_cast<int64_t>(ids.size());
  check(sample >= 0 && sample < size() && begin >= 0 && begin <= length(sample) - count &&
            labels.size() == ids.size(),
        "tokens [{}, {} + {}) of document {}", begin, begin, count, sample);
  const int64_t first = offsets_[static_cast<size_t>(sample)] + begin;
  read_extent(ids_, first * 4, ids.data(), count * 4);
  bool is_good = true;
  for (const int32_t id : ids) is_good &= id >= 0 && id < id_end_;
  if (supervision_ == Supervision::labels) {
    read_extent(labels_, first * 4, labels.data(), count * 4);
    for (const int32_t label : labels) is_good &= label == not_supervised || (label >= 0 && label < id_end_);
  } else if (supervision_ == Supervision::mask) {
    std::vector<uint8_t> mask(ids.size());
    read_extent(labels_, first, mask.data(), count);
    for (size_t t = 0; t < ids.size(); ++t) labels[t] = mask[t] ? ids[t] : not_supervised;
  } else {
    std::copy(ids.begin(), ids.end(), labels.begin());
  }
  if (!is_good) damaged(fmt::format("document {} holds ids outside [0, {})", sample, id_end_));
}

std::string TokenFile::name(int64_t sample) const {
  return fmt::format("{}: document {}", path().string(), sample);
}

void TokenFile::verify(int64_t part, int64_t parts) const {
  const int64_t begin = blocks() * part / parts;
  const int64_t end = blocks() * (part + 1) / parts;
  for (const Extent* extent : {&offsets_extent_, &ids_, &labels_}) {
    for (int64_t block = 0; block < blocks_of(extent->bytes); ++block) {
      const int64_t index = extent->first_block + block;
      if (index >= begin && index < end) verify_block(*extent, block);
    }
  }
}

}  // namespace ptrain
