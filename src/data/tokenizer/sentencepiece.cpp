// A small strict reader of protocol buffers, and the rules of Llama's tokenizer in terms of merges.
#include "src/data/tokenizer/sentencepiece.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_map>

#include "kernels/base/error.h"
#include "src/data/tokenizer/hash.h"
#include "src/data/tokenizer/utf8.h"
#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int64_t max_model_bytes = int64_t{64} << 20;
constexpr size_t max_piece_bytes = 512;                 // keeps the search for merges linear
constexpr size_t max_merges_bytes = size_t{256} << 20;  // of the texts of all merges

/// One field of a protocol buffer's message.
struct Field {
  uint32_t number;
  uint32_t wire;           // 0 varint, 1 eight bytes, 2 a block, 5 four bytes
  uint64_t value = 0;      // of wires 0, 1 and 5
  std::string_view block;  // of wire 2
};

class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t tag = varint();
    field = {static_cast<uint32_t>(tag >> 3), static_cast<uint32_t>(tag & 7), 0, {}};
    check(field.number > 0 && tag >> 3 < (1u << 29), ExitCode::input,
          "{}: broken at byte {}: no field number", where_, at_);
    switch (field.wire) {
      case 0:
        field.value = varint();
        return true;
      case 1:
        field.value = load_bytes(take(8).data(), 8);
        return true;
      case 2:
        field.block = take(varint());
        return true;
      case 5:
        field.value = load_bytes(take(4).data(), 4);
        return true;
      default:
        fail(ExitCode::input, "{}: broken at byte {}: field {} has wire type {}", where_, at_, field.number,
             field.wire);
    }
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(ExitCode::input, "{}: broken at byte {}: a number of more than ten bytes", where_, at_);
  }

  std::string_view take(uint64_t size_bytes) {
    check(size_bytes <= bytes_.size() - at_, ExitCode::input,
          "{}: broken at byte {}: {} bytes announced, {} left; is this a SentencePiece model?", where_, at_,
          size_bytes, bytes_.size() - at_);
    at_ += size_bytes;
    return bytes_.substr(at_ - size_bytes, size_bytes);
  }

  std::string_view bytes_;
  std::string_view where_;
  size_t at_ = 0;
};

enum class PieceType : uint64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

struct Model {
  std::vector<Piece> pieces;  // by id
  uint64_t kind = 1;          // 1 Unigram, 2 BPE, 3 word, 4 character
  bool has_byte_fallback = false;
  bool has_suffix_space = false;
  int64_t bos_id = 1;
  int64_t eos_id = 2;
  bool has_character_map = false;
  bool adds_dummy_prefix = true;
  bool removes_extra_spaces = true;
  bool escapes_spaces = true;
};

Piece read_piece(std::string_view bytes, const std::string& where) {
  Piece piece;
  ProtoReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.number == 1 && field.wire == 2) piece.text = field.block;
    if (field.number == 2 && field.wire == 5)
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == 3 && field.wire == 0) piece.type = static_cast<PieceType>(field.value);
  }
  check(!piece.text.empty() && piece.text.size() <= max_piece_bytes && is_valid_utf8(piece.text),
        ExitCode::input, "{}: a piece of {} bytes, expected 1 to {} bytes of UTF-8", where, piece.text.size(),
        max_piece_bytes);
  check(std::isfinite(piece.score), ExitCode::input, "{}: the score of \"{}\" is not a number", where,
        piece.text);
  const auto type = static_cast<uint64_t>(piece.type);
  check(type >= 1 && type <= 6 && piece.type != PieceType::unused, ExitCode::input,
        "{}: \"{}\" is of type {}, which is not supported", where, piece.text, type);
  return piece;
}

void read_trainer(std::string_view bytes, const std::string& where, Model& model) {
  ProtoReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.wire != 0) continue;
    if (field.number == 3) model.kind = field.value;
    if (field.number == 24) model.has_suffix_space = field.value != 0;
    if (field.number == 35) model.has_byte_fallback = field.value != 0;
    if (field.number == 41) model.bos_id = static_cast<int32_t>(field.value);
    if (field.number == 42) model.eos_id = static_cast<int32_t>(field.value);
  }
}

void read_normalizer(std::string_view bytes, const std::string& where, Model& model) {
  ProtoReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.number == 2 && field.wire == 2) model.has_character_map = !field.block.empty();
    if (field.wire != 0) continue;
    if (field.number == 3) model.adds_dummy_prefix = field.value != 0;
    if (field.number == 4) model.removes_extra_spaces = field.value != 0;
    if (field.number == 5) model.escapes_spaces = field.value != 0;
  }
}

Model read_model(std::string_view bytes, const std::string& where) {
  Model model;
  ProtoReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.wire != 2) continue;
    if (field.number == 1) {
      check(static_cast<int64_t>(model.pieces.size()) < max_token_ids, ExitCode::input,
            "{}: more than {} pieces", where, max_token_ids);
      model.pieces.push_back(
          read_piece(field.block, fmt::format("{}: piece {}", where, model.pieces.size())));
    } else if (field.number == 2) {
      read_trainer(field.block, where + ": trainer_spec", model);
    } else if (field.number == 3) {
      read_normalizer(field.block, where + ": normalizer_spec", model);
    }
  }
  check(!model.pieces.empty(), ExitCode::input, "{}: has no pieces; is this a SentencePiece model?", where);
  check(model.kind == 2, ExitCode::input,
        "{}: is a {} model; only SentencePiece models of kind BPE are supported", where,
        model.kind == 1   ? "Unigram"
        : model.kind == 3 ? "word"
        : model.kind == 4 ? "character"
                          : "strange");
  check(!model.has_character_map, ExitCode::input,
        "{}: normalizer_spec.precompiled_charsmap is not supported", where);
  check(!model.removes_extra_spaces, ExitCode::input, "{}: remove_extra_whitespaces is not supported", where);
  check(model.escapes_spaces, ExitCode::input, "{}: escape_whitespaces: false is not supported", where);
  check(!model.has_suffix_space, ExitCode::input, "{}: treat_whitespace_as_suffix is not supported", where);
  return model;
}

/// SentencePiece merges two neighbours if their text is a piece, the best score first. Equal scores share a
/// rank, so that the leftmost pair wins among them.
std::vector<MergeEntry> merges_of(const Model& model, const std::string& where) {
  std::unordered_map<std::string_view, const Piece*> by_text;
  std::vector<float> scores;
  for (const Piece& piece : model.pieces) {
    if (piece.type != PieceType::normal) continue;
    by_text.emplace(piece.text, &piece);
    scores.push_back(piece.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<MergeEntry> merges;
  size_t num_bytes = 0;
  for (const Piece& piece : model.pieces) {
    if (piece.type != PieceType::normal) continue;
    const auto place = std::lower_bound(scores.begin(), scores.end(), piece.score, std::greater<>());
    const auto rank = static_cast<uint32_t>(place - scores.begin());
    const std::string_view text = piece.text;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if ((text[cut] & 0xC0) == 0x80) continue;
      if (by_text.contains(text.substr(0, cut)) && by_text.contains(text.substr(cut))) {
        num_bytes += text.size();
        check(merges.size() < max_merges && num_bytes <= max_merges_bytes, ExitCode::input,
              "{}: the pieces can be made from each other in more than {} ways", where, merges.size());
        merges.push_back({std::string(text.substr(0, cut)), std::string(text.substr(cut)), rank});
      }
    }
  }
  return merges;
}

Json settings_of(const Model& model, const std::string& where, SentencePieceOptions options) {
  Json settings;
  Json added = Json::array();
  Json unknown;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type == PieceType::normal || piece.type == PieceType::byte) continue;
    if (piece.type == PieceType::unknown) unknown = piece.text;
    added.push_back({{"id", id},
                     {"content", piece.text},
                     {"normalized", false},
                     {"special", piece.type != PieceType::user_defined}});
  }
  settings["added_tokens"] = std::move(added);
  Json normalizers = Json::array();
  if (model.adds_dummy_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", "\u2581"}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}});
  settings["normalizer"] = {{"type", "Sequence"}, {"normalizers", normalizers}};
  Json decoders = Json::array();
  decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}});
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (model.adds_dummy_prefix)
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  settings["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
  Json single = Json::array();
  Json special_tokens = Json::object();
  const auto put = [&](int64_t id, std::string_view key) {
    check(id >= 0 && id < static_cast<int64_t>(model.pieces.size()), ExitCode::input,
          "{}: {} is {}, but the model has {} pieces", where, key, id, model.pieces.size());
    const std::string& name = model.pieces[static_cast<size_t>(id)].text;
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    special_tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  if (options.adds_bos) put(model.bos_id, "bos_id");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (options.adds_eos) put(model.eos_id, "eos_id");
  settings["post_processor"] = {
      {"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special_tokens}};
  settings["model"] = {{"type", "BPE"},    {"unk_token", unknown},
                       {"fuse_unk", true}, {"byte_fallback", model.has_byte_fallback},
                       {"vocab", nullptr}, {"merges", nullptr}};
  return settings;
}

}  // namespace

TokenizerFile parse_sentencepiece(std::string_view bytes, std::string_view where,
                                  SentencePieceOptions options) {
  TokenizerFile file;
  file.where = where;
  file.digest = hash_bytes(bytes, options.adds_bos * 2u + options.adds_eos + 1u);
  const Model model = read_model(bytes, file.where);
  file.settings = settings_of(model, file.where, options);
  file.vocab.reserve(model.pieces.size());
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    file.vocab.push_back({model.pieces[id].text, static_cast<int32_t>(id)});
  }
  file.merges = merges_of(model, file.where);
  return file;
}

TokenizerFile read_sentencepiece(const std::filesystem::path& path) {
  SentencePieceOptions options;
  const std::filesystem::path config = path.parent_path() / "tokenizer_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(config, ignored)) {
    const Json settings = read_json(config, max_model_bytes);
    check(settings.is_object(), ExitCode::input, "{}: is {}, expected an object", config.string(),
          kind_of(settings));
    options.adds_bos = optional_or<bool>(settings, "add_bos_token", true, config.string());
    options.adds_eos = optional_or<bool>(settings, "add_eos_token", false, config.string());
  }
  return parse_sentencepiece(read_text(path, max_model_bytes), path.string(), options);
}

}  // namespace ptrain
