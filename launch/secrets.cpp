#include "launch/secrets.h"

#include <cctype>

namespace ptrain {

namespace {

bool is_word_of_secrets(std::string_view word) {
  return word == "TOKEN" || word == "SECRET" || word == "PASSWORD" || word == "PASSWD";
}

}  // namespace

bool is_secret(std::string_view variable) {
  if (variable == "AWS_ACCESS_KEY_ID") return true;
  std::string word;
  for (const char c : variable) {
    if (c != '_') {
      word += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      continue;
    }
    if (is_word_of_secrets(word)) return true;
    word.clear();
  }
  return is_word_of_secrets(word) || word == "KEY";
}

std::vector<std::string> secrets_of(const Environment& environment) {
  std::vector<std::string> values;
  for (const auto& [name, value] : environment) {
    if (is_secret(name)) values.push_back(value);
  }
  return values;
}

}  // namespace ptrain
