// How fast one thread tokenizes a text file: bench_tokenizer MODEL_DIR TEXT_FILE [ROUNDS]
// Prints MB of text a second: the file as one text, and line by line as rows come. Not a test of the ids.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>

#include "src/data/tokenizer/tokenizer.h"
#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void measure(const std::string& model_dir, const std::string& path, int rounds) {
  std::unique_ptr<Tokenizer> tokenizer;
  const double load_s = seconds_of([&] { tokenizer = Tokenizer::load(model_dir); });
  const std::string text = read_text(path, int64_t{1} << 30);
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  fmt::print("load {:.3f} s, {} ids; text {:.2f} MB\n", load_s, tokenizer->size(), megabytes);
  std::vector<int32_t> ids;
  const auto whole = [&] {
    ids.clear();
    tokenizer->encode_to(text, Special::none, ids);
  };
  const auto by_line = [&] {
    ids.clear();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
      tokenizer->encode_to(std::string_view(text).substr(begin, end - begin), Special::none, ids);
      begin = end;
    }
  };
  std::string decoded;
  const auto decode = [&] { decoded = tokenizer->decode(ids, Skip::none); };
  const auto report = [&](const char* name, const std::function<void()>& work) {
    const double first_s = seconds_of(work);
    double best_s = first_s;
    for (int i = 1; i < rounds; ++i) best_s = std::min(best_s, seconds_of(work));
    fmt::print("{:8} first {:7.1f} MB/s, best {:7.1f} MB/s, {} ids\n", name, megabytes / first_s,
               megabytes / best_s, ids.size());
  };
  report("whole", whole);
  report("lines", by_line);
  report("decode", decode);
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    fmt::print(stderr, "usage: bench_tokenizer MODEL_DIR TEXT_FILE [ROUNDS]\n");
    return 2;
  }
  try {
    ptrain::measure(argv[1], argv[2], argc == 4 ? std::max(1, std::atoi(argv[3])) : 3);
  } catch (const ptrain::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
