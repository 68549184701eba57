#include "src/io/fetch.h"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "src/io/checkpoint.h"
#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/manifest.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view step_prefix = "step-";
constexpr int most_checkpoint_parts = 1 << 16;

/// The note beside a fetched directory: model -> model.fetched.json.
fs::path note_of(const fs::path& directory) {
  return fs::path(directory.string() + ".fetched.json");
}

bool has_size(const fs::path& file, int64_t bytes) {
  std::error_code error;
  return fs::is_regular_file(fs::symlink_status(file, error)) &&
         fs::file_size(file, error) == static_cast<uintmax_t>(bytes);
}

/// Whether an earlier call brought all of it, by the note beside it.
bool is_fetched(const fs::path& directory, const std::string& place) {
  std::error_code error;
  if (!fs::exists(note_of(directory), error)) return false;
  const std::string where = note_of(directory).string();
  const Json note = read_json(note_of(directory));
  if (!note.is_object() || required<std::string>(note, "from", where) != place) return false;
  for (const auto& [name, bytes] : note["files"].items()) {
    if (!bytes.is_number_integer() || !has_size(directory / name, bytes.get<int64_t>())) return false;
  }
  return true;
}

void check_room(const fs::path& directory, const S3Listing& files, const std::string& place) {
  int64_t bytes = 0;
  for (const auto& [name, size] : files) bytes += size;
  std::error_code error;
  const fs::space_info room = fs::space(directory, error);
  check(error || static_cast<int64_t>(room.available) > bytes, ExitCode::resources,
        "{}: {} MB of {} do not fit: {} MB are free", directory.string(), bytes / 1000000, place,
        error ? 0 : room.available / 1000000);
}

/// One object, on the disk when it returns: after a crash its size alone says whether it is there.
void get(const S3& s3, const std::string& object, const fs::path& file, int64_t bytes, std::stop_token stop) {
  s3.retry([&] { s3.get(object, file, bytes, stop); }, stop);
  File::open_for_writing(file).sync();
}

/// Into a new directory beside, then renamed.
void bring(const S3& s3, const std::string& place, const S3Listing& files, const fs::path& directory,
           std::stop_token stop) {
  const fs::path making = directory.parent_path() / (".tmp-" + directory.filename().string());
  std::error_code error;
  fs::remove_all(making, error);
  make_directories(making);
  check_room(making, files, place);
  for (const auto& [name, bytes] : files) {
    check(is_plain_path(name), ExitCode::input, "{} has an object \"{}\", which is no plain name", place,
          name);
    make_directories((making / name).parent_path());
    get(s3, place + "/" + name, making / name, bytes, stop);
  }
  fs::remove_all(directory, error);
  rename_path(making, directory);
  sync_directory(directory.parent_path());
}

/// "step-00000500/…" -> 500.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(step_prefix)) return std::nullopt;
  name.remove_prefix(step_prefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc{} || end == name.data() + name.size() || *end != '/') return std::nullopt;
  return step;
}

}  // namespace

bool is_model_file(std::string_view name, bool with_weights) {
  const bool is_weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
  if (is_weights) return with_weights && name.find('/') == std::string_view::npos;
  return std::ranges::find(small_hf_files(), name) != small_hf_files().end();
}

void fetch_directory(const S3& s3, const std::string& place, const fs::path& directory,
                     const std::function<bool(std::string_view)>& is_wanted, std::stop_token stop) {
  if (is_fetched(directory, place)) return;
  S3Listing files;
  s3.retry([&] { files = s3.list(place, stop); }, stop);
  const size_t seen = files.size();
  std::erase_if(files, [&](const auto& file) { return !is_wanted(file.first); });
  check(!files.empty(), ExitCode::input, "{}: {} there", place,
        seen == 0 ? "nothing is" : fmt::format("{} objects, but none that is needed, are", seen));
  bring(s3, place, files, directory, stop);
  Json note = {{"from", place}, {"files", Json::object()}};
  for (const auto& [name, bytes] : files) note["files"][name] = bytes;
  write_text(note_of(directory), note.dump(2) + "\n");
}

S3Pattern s3_pattern(std::string_view text, std::string_view where) {
  const size_t slash = text.rfind('/');
  check(slash != std::string_view::npos && slash + 1 < text.size(), ExitCode::usage,
        "{} = {}: s3://bucket/prefix/NAME is expected", where, text);
  const S3Pattern pattern{s3_place(text.substr(0, slash), where), std::string(text.substr(slash + 1))};
  std::string bare = pattern.name;
  std::ranges::replace_if(
      bare, [](char c) { return c == '*' || c == '?'; }, 'x');
  check(is_plain_path(bare), ExitCode::usage,
        "{} = {}: the last part takes letters, digits, . _ - = + @ , and the wildcards * and ?", where, text);
  return pattern;
}

std::vector<fs::path> fetch_files(const S3& s3, const std::string& text, const fs::path& directory,
                                  std::stop_token stop) {
  const S3Pattern pattern = s3_pattern(text, "data");
  S3Listing files;
  s3.retry([&] { files = s3.list(pattern.place, stop); }, stop);
  std::erase_if(files, [&](const auto& file) {
    return ::fnmatch(pattern.name.c_str(), file.first.c_str(), FNM_PATHNAME | FNM_PERIOD) != 0;
  });
  check(!files.empty(), ExitCode::input, "{}: there is no such object", text);
  make_directories(directory);
  std::vector<fs::path> paths;
  for (const auto& [name, bytes] : files) {
    check(is_plain_path(name), ExitCode::input, "{} has an object \"{}\", which is no plain name",
          pattern.place, name);
    const fs::path path = directory / name;
    paths.push_back(path);
    if (has_size(path, bytes)) continue;
    check_room(directory, {{name, bytes}}, pattern.place);
    const fs::path making = directory / (".tmp-" + name);
    get(s3, pattern.place + "/" + name, making, bytes, stop);
    rename_path(making, path);
  }
  return paths;
}

std::string remote_name(std::string_view step_name, int part, int parts) {
  return parts == 1 ? std::string(step_name) : fmt::format("{}/part-{}-of-{}", step_name, part, parts);
}

std::vector<RemoteCheckpoint> list_checkpoints(const S3& s3, const std::string& place, std::stop_token stop) {
  S3Listing all;
  s3.retry([&] { all = s3.list(place, stop); }, stop);
  std::vector<RemoteCheckpoint> whole;
  for (const auto& [name, bytes] : all) {
    const auto step = step_of(name);
    if (!step) continue;
    const std::string step_name = name.substr(0, name.find('/'));
    if (step_name != checkpoint_name(*step)) continue;
    const auto has = [&](int part, int parts) {
      return all.contains(remote_name(step_name, part, parts) + "/" + manifest_name);
    };
    int parts = has(0, 1) ? 1 : 0;
    const size_t of = name.find("/part-0-of-");
    if (parts == 0 && of != std::string::npos) {
      const std::string_view number =
          std::string_view(name).substr(of + std::string_view("/part-0-of-").size());
      std::from_chars(number.data(), number.data() + number.size(), parts);
      if (parts < 2 || parts > most_checkpoint_parts) continue;
      for (int part = 0; part < parts; ++part) {
        if (!has(part, parts)) parts = 0;
      }
    }
    const bool is_known = !whole.empty() && whole.back().step == *step;
    if (parts > 0 && !is_known) whole.push_back({*step, parts});
  }
  std::ranges::sort(whole, std::greater{}, &RemoteCheckpoint::step);
  return whole;
}

void fetch_part(const S3& s3, const std::string& place, const RemoteCheckpoint& checkpoint, int part,
                const fs::path& directory, std::stop_token stop) {
  const std::string from =
      place + "/" + remote_name(checkpoint_name(checkpoint.step), part, checkpoint.parts);
  S3Listing files;
  s3.retry([&] { files = s3.list(from, stop); }, stop);
  make_directories(directory.parent_path());
  bring(s3, from, files, directory, stop);
  try {
    open_manifest(directory);
  } catch (const Error& error) {
    std::error_code ignored;
    fs::remove_all(directory, ignored);
    fail(ExitCode::input, "{} is not whole: {}", from, error.what());
  }
}

}  // namespace ptrain
