// Puts the parts of a tokenizer together: added tokens, normalizer, pre-tokenizer, merges, post-processor,
// decoder.
#include "src/data/tokenizer/tokenizer.h"

#include <mutex>
#include <utility>

#include "kernels/base/error.h"
#include "src/data/tokenizer/added_tokens.h"
#include "src/data/tokenizer/bpe.h"
#include "src/data/tokenizer/decoder.h"
#include "src/data/tokenizer/file.h"
#include "src/data/tokenizer/normalizer.h"
#include "src/data/tokenizer/post_processor.h"
#include "src/data/tokenizer/pre_tokenizer.h"
#include "src/data/tokenizer/utf8.h"
#include "src/data/tokenizer/vocabulary.h"
#include "src/data/tokenizer/word_cache.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr std::string_view metaspace_sign = "\u2581";

/// What one thread needs while it encodes.
struct Scratch {
  std::vector<Segment> raw_segments;
  std::vector<Segment> segments;
  NormalizerScratch normalizer;
  PreTokenizerScratch pre_tokenizer;
  BpeScratch bpe;
  WordCache words;
};

/// Working spaces that are free. A thread takes one for a call and puts it back, with what its cache learnt.
class ScratchPool {
 public:
  std::unique_ptr<Scratch> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto scratch = std::move(free_.back());
        free_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>();
  }

  void put(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

/// A working space of the pool for as long as this lives.
class Lease {
 public:
  explicit Lease(ScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}
  ~Lease() { pool_.put(std::move(scratch_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch& operator*() const { return *scratch_; }

 private:
  ScratchPool& pool_;
  std::unique_ptr<Scratch> scratch_;
};

/// Refuses other models by name before anything else of the file is read.
const Json& check_model(const TokenizerFile& file) {
  const auto model = file.settings.find("model");
  check(model != file.settings.end() && model->is_object(), ExitCode::input,
        "{}: \"model\" is missing or not an object", file.where);
  const auto type = optional_or<std::string>(*model, "type", "BPE", file.where + ": model");
  check(type == "BPE", ExitCode::input, "{}: the model \"{}\" is not supported (supported: BPE)", file.where,
        type);
  check(!file.vocab.empty() && model->contains("merges"), ExitCode::input,
        "{}: model: \"vocab\" or \"merges\" is missing or empty", file.where);
  return *model;
}

/// settings[key], or null.
Json part_of(const TokenizerFile& file, const char* key) {
  const auto found = file.settings.find(key);
  return found == file.settings.end() ? Json() : *found;
}

/// Whether bytes may stand for their byte-level spelling in front of this model.
bool may_keep_bytes(const TokenizerFile& file, const Json& model) {
  const std::string where = file.where + ": model";
  return !optional_or<bool>(model, "byte_fallback", false, where) &&
         optional_or<std::string>(model, "continuing_subword_prefix", "", where).empty() &&
         optional_or<std::string>(model, "end_of_word_suffix", "", where).empty();
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerFile& file)
      : model(check_model(file)),
        digest(file.digest),
        vocabulary(file.vocab, file.where + ": model.vocab"),
        normalizer(part_of(file, "normalizer"), file.where + ": normalizer"),
        added(file, vocabulary, normalizer),
        pre_tokenizer(part_of(file, "pre_tokenizer"), file.where + ": pre_tokenizer",
                      may_keep_bytes(file, model)),
        bpe(file, vocabulary, pre_tokenizer.alphabet()),
        decoder(part_of(file, "decoder"), file.where + ": decoder") {
    num_ids = vocabulary.size();
    for (const AddedToken& token : added.tokens()) num_ids = std::max(num_ids, token.id + 1);
    added_by_id.resize(static_cast<size_t>(num_ids), nullptr);
    for (const AddedToken& token : added.tokens()) added_by_id[static_cast<size_t>(token.id)] = &token;
    post_processor =
        read_post_processor(part_of(file, "post_processor"), file.where + ": post_processor", num_ids);
    cuts_at_sign = pre_tokenizer.alphabet() == Alphabet::utf8 && bpe.may_cut_before(metaspace_sign);
  }

  const AddedToken* added_token(int32_t id) const {
    return id >= 0 && id < num_ids ? added_by_id[static_cast<size_t>(id)] : nullptr;
  }

  void encode_valid(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_plain(std::string_view text, bool is_start, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_piece(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  const Json model;  // the settings of the model, without its tables
  uint64_t digest;
  Vocabulary vocabulary;
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  TokenDecoder decoder;
  PostProcessor post_processor;
  int32_t num_ids = 0;
  std::vector<const AddedToken*> added_by_id;
  bool cuts_at_sign = false;  // long texts without a pre-tokenizer fall apart into words, with the same ids
  mutable ScratchPool pool;
};

void Tokenizer::Impl::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  if (word.size() > WordCache::max_piece_bytes) {
    bpe.encode(word, scratch.bpe, out);
    return;
  }
  const WordCache::Key key = WordCache::key_of(word);
  WordCache::Entry& entry = scratch.words.place_of(key);
  if (entry.key == key) {
    out.insert(out.end(), entry.ids.begin(), entry.ids.begin() + entry.num_ids);
    return;
  }
  const size_t before = out.size();
  bpe.encode(word, scratch.bpe, out);
  const size_t count = out.size() - before;
  if (count > WordCache::max_ids) return;
  entry.key = key;
  entry.num_ids = static_cast<uint32_t>(count);
  std::copy_n(out.begin() + static_cast<int64_t>(before), count, entry.ids.begin());
}

void Tokenizer::Impl::encode_piece(std::string_view piece, Scratch& scratch,
                                   std::vector<int32_t>& out) const {
  if (!cuts_at_sign) return encode_word(piece, scratch, out);
  size_t begin = 0;
  for (size_t at = 0; (at = piece.find(metaspace_sign, at)) != std::string_view::npos;
       at += metaspace_sign.size()) {
    const bool follows_sign = piece.substr(0, at).ends_with(metaspace_sign);
    if (at == begin || follows_sign) continue;
    encode_word(piece.substr(begin, at - begin), scratch, out);
    begin = at;
  }
  if (begin < piece.size()) encode_word(piece.substr(begin), scratch, out);
}

void Tokenizer::Impl::encode_plain(std::string_view text, bool is_start, Scratch& scratch,
                                   std::vector<int32_t>& out) const {
  pre_tokenizer.split(text, is_start, scratch.pre_tokenizer,
                      [&](std::string_view piece) { encode_piece(piece, scratch, out); });
}

void Tokenizer::Impl::encode_valid(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const {
  scratch.raw_segments.clear();
  added.in_raw_text().split(text, scratch.raw_segments);
  bool is_start = true;
  for (const Segment& raw : scratch.raw_segments) {
    if (raw.id >= 0) {
      out.push_back(raw.id);
    } else {
      const std::string_view normalized = normalizer.apply(raw.text, scratch.normalizer);
      scratch.segments.clear();
      added.in_normalized_text().split(normalized, scratch.segments);
      for (const Segment& segment : scratch.segments) {
        if (segment.id >= 0) {
          out.push_back(segment.id);
        } else {
          encode_plain(segment.text, is_start && segment.text.data() == normalized.data(), scratch, out);
        }
      }
    }
    is_start = false;
  }
}

bool has_tokenizer(const std::filesystem::path& model_dir) {
  std::error_code error;
  return std::filesystem::exists(model_dir / "tokenizer.json", error) ||
         std::filesystem::exists(model_dir / "tokenizer.model", error);
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& model_dir,
                                           std::span<const std::string> special_tokens) {
  TokenizerFile file = read_tokenizer_file(model_dir);
  add_special_tokens(file, special_tokens);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::make_unique<const Impl>(file)));
}

std::string tokenizer_json(const std::filesystem::path& model_dir,
                           std::span<const std::string> special_tokens) {
  TokenizerFile file = read_tokenizer_file(model_dir);
  add_special_tokens(file, special_tokens);
  return to_json_text(file);
}

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view text, std::string_view where) {
  return std::unique_ptr<Tokenizer>(
      new Tokenizer(std::make_unique<const Impl>(parse_tokenizer_json(text, where))));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Special special) const {
  std::vector<int32_t> ids;
  encode_to(text, special, ids);
  return ids;
}

void Tokenizer::encode_to(std::string_view text, Special special, std::vector<int32_t>& out) const {
  const Lease scratch(impl_->pool);
  const PostProcessor& around = impl_->post_processor;
  if (special == Special::add) out.insert(out.end(), around.before.begin(), around.before.end());
  if (is_valid_utf8(text)) {
    impl_->encode_valid(text, *scratch, out);
  } else {
    impl_->encode_valid(to_valid_utf8(text), *scratch, out);
  }
  if (special == Special::add) out.insert(out.end(), around.after.begin(), around.after.end());
}

std::string Tokenizer::decode(std::span<const int32_t> ids, Skip skip) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids) {
    const AddedToken* added = impl_->added_token(id);
    if (added && added->is_special && skip == Skip::special) continue;
    if (added) {
      tokens.push_back(added->pattern);  // as it stood in the normalised text
    } else if (const std::string_view token = impl_->vocabulary.token(id); token.data() != nullptr) {
      tokens.emplace_back(token);
    }
  }
  const Lease scratch(impl_->pool);
  return impl_->decoder.decode(std::move(tokens), (*scratch).pre_tokenizer.regex);
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  for (const AddedToken& added : impl_->added.tokens()) {
    if (added.content == token) return added.id;
  }
  const int32_t id = impl_->vocabulary.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string Tokenizer::token_of(int32_t id) const {
  const AddedToken* added = impl_->added_token(id);
  return added ? added->content : std::string(impl_->vocabulary.token(id));
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* added = impl_->added_token(id);
  return added && added->is_special;
}

int32_t Tokenizer::size() const {
  return impl_->num_ids;
}

uint64_t Tokenizer::digest() const {
  return impl_->digest;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_ == Skip::special && tokenizer_->is_special(id)) return "";
  window_.push_back(id);
  const std::string text = tokenizer_->decode(window_, skip_);
  // U+FFFD at the end may be a character that the next ids complete. Broken text does not wait for ever.
  const bool is_open = text.ends_with(replacement_character) && window_.size() - num_shown_ < max_held_ids;
  return is_open ? "" : show(text);
}

std::string StreamDecoder::finish() {
  return show(tokenizer_->decode(window_, skip_));
}

/// What `text`, the whole window, has more than what was shown; the new ids become the context.
std::string StreamDecoder::show(const std::string& text) {
  const std::string shown = tokenizer_->decode(std::span(window_).first(num_shown_), skip_);
  const std::string fresh = text.size() > shown.size() ? text.substr(shown.size()) : "";
  window_.erase(window_.begin(), window_.begin() + static_cast<int64_t>(num_shown_));
  num_shown_ = window_.size();
  return fresh;
}

}  // namespace ptrain
