#include "parallel/comm/agree.h"

#include <algorithm>
#include <new>
#include <system_error>
#include <vector>

#include "kernels/base/rng.h"
#include "parallel/comm/host_objects.h"

namespace ptrain {
namespace {

// What ranks tell each other of their errors.
struct Verdict {
  int64_t code = 0;  // an ExitCode; done where there is no error
  int64_t hash = 0;  // of the text
};

}  // namespace

void agree(Communicator& world, const std::optional<Error>& mine) {
  Verdict own;
  if (mine) own = {static_cast<int64_t>(mine->code()), static_cast<int64_t>(hash_of(mine->what()))};
  std::vector<Verdict> all(static_cast<size_t>(world.size()));
  world.all_gather(Tensor(&own, {2}, DType::i64), Tensor(all.data(), {2 * std::ssize(all)}, DType::i64));
  int speaker = 0;
  while (speaker < world.size() && all[static_cast<size_t>(speaker)].code == 0) ++speaker;
  if (speaker == world.size()) return;

  const Verdict& spoken = all[static_cast<size_t>(speaker)];
  int others = 0, alike = 0;
  for (const Verdict& verdict : all) {
    others += verdict.code != 0 && verdict.hash != spoken.hash;
    alike += verdict.code != 0 && verdict.hash == spoken.hash;
  }
  std::string text = broadcast_text(world, mine ? mine->what() : "", speaker);
  if (others > 0) text += fmt::format(" ({} more ranks report other errors)", others);
  const std::source_location where = mine ? mine->where() : std::source_location::current();
  throw AgreedError(Error(static_cast<ExitCode>(spoken.code), text, where), world.rank() == speaker,
                    alike == world.size() ? AgreedError::FoundBy::all : AgreedError::FoundBy::some);
}

void FirstError::tried(const std::function<void()>& work) {
  if (error_) return;
  try {
    work();
  } catch (const Error& mine) {
    error_ = mine;
  } catch (const std::bad_alloc&) {
    error_ = Error(ExitCode::resources, "no memory left on this host", std::source_location::current());
  } catch (const std::system_error& other) {  // of the machine: no more threads, a directory that is gone
    error_ = Error(ExitCode::resources, other.what(), std::source_location::current());
  } catch (const std::exception& other) {
    error_ = Error(ExitCode::defect, other.what(), std::source_location::current());
  }
}

void agreed(Communicator& world, const std::function<void()>& work) {
  FirstError mine;
  mine.tried(work);
  agree(world, mine.error());
}

void agree_alike(Communicator& world, ExitCode code, std::string_view mine,
                 const std::function<std::string(std::string_view first)>& objection) {
  const std::string first = broadcast_text(world, mine, 0);
  agreed(world, [&] {
    if (!mine.empty() && mine != first) fail(code, "{}", objection(first));
  });
}

DifferentLines first_difference(std::string_view mine, std::string_view first) {
  const auto line = [](std::string_view& text) {
    const std::string_view head = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), head.size() + 1));
    return head;
  };
  while (!mine.empty() || !first.empty()) {
    const DifferentLines lines{line(mine), line(first)};
    if (lines.mine != lines.first) return lines;
  }
  return {};
}

}  // namespace ptrain
