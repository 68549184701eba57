// What is shown nowhere: keys and tokens of the environment, and what other programs say of keys. Log lines
// and error messages pass through here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

/// Set once at start by launch/, before threads exist. Values of less than 6 characters are left out: they
/// would hide ordinary words.
void hide_secrets(std::vector<std::string> values);

/// The text with `***` for the hidden values, for AKIA… and ASIA… of AWS, and for the values behind
/// Signature=, Credential= and Security-Token= of signed addresses.
std::string without_secrets(std::string_view text);

}  // namespace ptrain
