#include "kernels/base/secrets.h"

#include <algorithm>
#include <cctype>

namespace ptrain {
namespace {

// Process-wide, as the log is: written once, before threads exist; the longest first, since one may be a part
// of another.
std::vector<std::string> secrets;

constexpr size_t shortest_secret = 6;
constexpr std::string_view mask = "***";

void replace_all(std::string& text, std::string_view what) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + mask.size()))
    text.replace(at, what.size(), mask);
}

/// AWS's names of keys: AKIA or ASIA and 12 or more capitals and digits.
void mask_key_ids(std::string& text) {
  for (const std::string_view prefix : {"AKIA", "ASIA"}) {
    for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + mask.size())) {
      const auto is_of_id = [](unsigned char c) { return std::isupper(c) || std::isdigit(c); };
      const auto end = std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), is_of_id);
      const size_t length = static_cast<size_t>(end - text.begin()) - at;
      if (length >= 16) text.replace(at, length, mask);
    }
  }
}

/// What stands behind these names up to the next blank, quote or separator.
void mask_values(std::string& text) {
  for (const std::string_view name : {"Signature=", "Credential=", "Security-Token="}) {
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + name.size())) {
      const size_t begin = at + name.size();
      const size_t end = std::min(text.find_first_of(" \t\r\n&,;\"'<>", begin), text.size());
      text.replace(begin, end - begin, mask);
    }
  }
}

}  // namespace

void hide_secrets(std::vector<std::string> values) {
  std::erase_if(values, [](const std::string& value) { return value.size() < shortest_secret; });
  std::ranges::sort(values, [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  secrets = std::move(values);
}

std::string without_secrets(std::string_view text) {
  std::string shown(text);
  for (const std::string& secret : secrets) replace_all(shown, secret);
  mask_key_ids(shown);
  mask_values(shown);
  return shown;
}

}  // namespace ptrain
