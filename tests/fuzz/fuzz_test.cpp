// Every fuzz target over its seeds and a fixed row of mutations of them: each is read or refused with an
// Error, and takes no more memory than its size warrants. libFuzzer goes further, see fuzz_main.cpp.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/rng.h"
#include "tests/fuzz/targets.h"

namespace {

// The largest piece of memory that was asked for since it was last set to 0.
std::atomic<size_t> largest_allocation{0};

void* allocate_or_null(size_t bytes) noexcept {
  size_t seen = largest_allocation.load(std::memory_order_relaxed);
  while (bytes > seen && !largest_allocation.compare_exchange_weak(seen, bytes)) {
  }
  return std::malloc(bytes == 0 ? 1 : bytes);
}

void* allocate(size_t bytes) {
  if (void* memory = allocate_or_null(bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t bytes) {
  return allocate(bytes);
}
void* operator new[](size_t bytes) {
  return allocate(bytes);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return allocate_or_null(bytes);
}
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
  return allocate_or_null(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}

namespace ptrain::fuzz {
namespace {

constexpr int mutations = 400;
constexpr size_t allowed_bytes = 4 << 20;  // whatever the input, and
constexpr size_t allowed_per_byte = 64;    // for each of its bytes

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  /// 0 … below - 1.
  size_t roll(size_t below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return below == 0 ? 0 : static_cast<size_t>(state_ >> 33) % below;
  }

 private:
  uint64_t state_;
};

const char* const phrases[] = {"null",
                               "-1",
                               "1e999",
                               "\"\"",
                               "{}",
                               "[]",
                               "true",
                               "99999999999999999999",
                               "9223372036854775807",
                               "4294967296",
                               "../x",
                               "/etc/passwd",
                               "\\u0000",
                               "\xff\xfe",
                               "{{",
                               "{%",
                               "\"",
                               ",",
                               ":",
                               "[[[[[[[[",
                               "0.5",
                               "\n",
                               "&a",
                               "*a",
                               "!!"};

/// Some of: bytes changed, bits flipped, pieces cut, doubled, moved, filled with 0xff, numbers that are too
/// large.
std::string mutated(std::string text, Dice& dice) {
  for (size_t left = 1 + dice.roll(4); left > 0; --left) {
    const size_t at = dice.roll(text.size() + 1);
    const size_t length = dice.roll(std::min<size_t>(16, text.size() - at) + 1);
    switch (dice.roll(9)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(dice.roll(256));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << dice.roll(8)));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        text.resize(at);
        break;
      case 5:
        for (size_t i = at; i < at + length; ++i) text[i] = '\xff';
        break;
      case 6:
        text.insert(at, phrases[dice.roll(std::size(phrases))]);
        break;
      case 7:
        text.replace(at, length, phrases[dice.roll(std::size(phrases))]);
        break;
      case 8: {  // a number of the text becomes another one
        const size_t number = text.find_first_of("0123456789", at);
        if (number == std::string::npos) break;
        text.replace(number, text.find_first_not_of("0123456789", number) - number,
                     phrases[dice.roll(std::size(phrases))]);
        break;
      }
    }
  }
  return text;
}

class Fuzz : public ::testing::TestWithParam<std::string_view> {};

/// Returns what is wrong with how a target took some bytes, or nothing.
std::string fault_of(const Target& target, const std::string& bytes) {
  largest_allocation = 0;
  try {
    target.run(bytes);
  } catch (const Error& error) {
    if (error.code() == ExitCode::defect) return std::string("a defect: ") + error.what();
  } catch (const std::exception& error) {
    return std::string("another exception: ") + error.what();
  }
  const size_t most = allowed_bytes + allowed_per_byte * bytes.size();
  if (largest_allocation > most) return fmt::format("{} bytes at once", largest_allocation.load());
  return "";
}

TEST_P(Fuzz, SeedsAreTakenAndMutationsOfThemAreReadOrRefused) {
  const Target& target = fuzz::target(GetParam());
  const std::vector<std::string> seeds = target.seeds();
  ASSERT_FALSE(seeds.empty());
  for (const std::string& seed : seeds) EXPECT_NO_THROW(target.run(seed)) << seed.substr(0, 200);
  log::configure(log::Level::error, 0, 1);
  Dice dice(hash_of(GetParam()));
  for (int i = 0; i < mutations; ++i) {
    const std::string bytes = mutated(seeds[static_cast<size_t>(i) % seeds.size()], dice);
    const std::string fault = fault_of(target, bytes);
    ASSERT_EQ(fault, "") << "mutation " << i << ": " << ::testing::PrintToString(bytes.substr(0, 2000));
  }
  for (size_t length = 0; length < 64; ++length) {
    const std::string noise(length, static_cast<char>(dice.roll(256)));
    ASSERT_EQ(fault_of(target, noise), "") << length;
  }
}

std::vector<std::string_view> names() {
  std::vector<std::string_view> all;
  for (const Target& target : targets()) all.push_back(target.name);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, ::testing::ValuesIn(names()),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ptrain::fuzz
