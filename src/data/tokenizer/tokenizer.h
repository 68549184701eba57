// Text to token ids and back, exactly as the model's own tokenizer.json (or tokenizer.model) says.
// Knows nothing of chats, rows or masks; templates are chat_template's, rows are rows'.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

/// Whether encode() adds what the tokenizer's post-processor adds (BOS, EOS).
enum class Special { add, none };

/// Whether decode() leaves out the special added tokens.
enum class Skip { none, special };

/// Whether Tokenizer::load() has a file to read there.
bool has_tokenizer(const std::filesystem::path& model_dir);

/// A loaded tokenizer. Const member functions may be called from several threads at once.
///
/// Ids are those of the Hugging Face tokenizers library, with these known limits: characters that one side's
/// Unicode tables do not know yet or class otherwise (Unicode 14 in patterns and 15 elsewhere here; the
/// library mixes older and newer ones), vocabularies with holes in their ids (the library numbers added
/// tokens anew, here the file's ids count), and Replace normalizers whose pattern matches the empty string.
///
///   auto tokenizer = Tokenizer::load("models/smollm2");
///   std::vector<int32_t> ids = tokenizer->encode("Hello, world!", Special::add);
///   std::string text = tokenizer->decode(ids, Skip::special);
class Tokenizer {
 public:
  /// Reads model_dir/tokenizer.json, or tokenizer.model where there is no tokenizer.json, and adds
  /// `special_tokens`: those that the tokenizer lacks get the ids from its size() on, in their order.
  /// Errors: ExitCode::input: neither file is there, a broken file (path and key are named), or a kind of
  /// tokenizer that is not supported (named).
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& model_dir,
                                         std::span<const std::string> special_tokens = {});

  /// The same from the text of a tokenizer.json; `where` names it in messages.
  static std::unique_ptr<Tokenizer> from_json(std::string_view text, std::string_view where);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// The ids of a text. What is not UTF-8 is read as U+FFFD, one for each broken-off character.
  /// Errors: ExitCode::input where a pattern of the tokenizer runs into its match limits on this text.
  std::vector<int32_t> encode(std::string_view text, Special special) const;

  /// The same, appended to `out`, for loops over many texts.
  void encode_to(std::string_view text, Special special, std::vector<int32_t>& out) const;

  /// The text of ids: valid UTF-8, with U+FFFD for what is not. Ids that the tokenizer does not know are left
  /// out.
  std::string decode(std::span<const int32_t> ids, Skip skip) const;

  /// The id of a whole token (vocabulary or added), written as in the vocabulary file.
  std::optional<int32_t> id_of(std::string_view token) const;

  /// The token as written in the vocabulary file; "" for an id without a token.
  std::string token_of(int32_t id) const;

  /// True for added tokens marked special: those that Skip::special leaves out.
  bool is_special(int32_t id) const;

  /// Largest id + 1. Ids may have holes.
  int32_t size() const;

  /// A hash of the files' content: equal for equal tokenizers, the key of token caches.
  uint64_t digest() const;

  struct Impl;  // the parts, private to this folder

 private:
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// The text of a tokenizer.json for the tokenizer that load() makes of the same arguments.
std::string tokenizer_json(const std::filesystem::path& model_dir,
                           std::span<const std::string> special_tokens);

/// Decodes a growing row of ids piece by piece, for text that is shown while it is generated.
/// The pieces joined, finish() included, are what decode() gives for all ids at once (where more than 64 ids
/// in a row are no character, as nearly as can be).
class StreamDecoder {
 public:
  /// `tokenizer` must outlive it.
  StreamDecoder(const Tokenizer& tokenizer, Skip skip) : tokenizer_(&tokenizer), skip_(skip) {}

  /// The text that this id completes, often "" in the middle of a character: whole UTF-8 characters only.
  std::string push(int32_t id);

  /// What is still held back, once no more ids come.
  std::string finish();

 private:
  static constexpr size_t max_held_ids = 64;
  std::string show(const std::string& text);

  const Tokenizer* tokenizer_;
  Skip skip_;
  std::vector<int32_t> window_;  // the ids shown last, as context, then those not shown yet
  size_t num_shown_ = 0;         // how many of the window are context
};

}  // namespace ptrain
