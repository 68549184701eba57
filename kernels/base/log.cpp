#include "kernels/base/log.h"

#include <cstdio>
#include <string>

namespace ptrain::log {
namespace {

// The one piece of process-wide state: who speaks, and from which level up. Written once, before threads
// exist.
struct Voice {
  Level level = Level::info;
  int rank = 0;
  int world = 1;
} voice;

}  // namespace

void configure(Level level, int rank, int world) {
  voice = {level, rank, world};
}

void write(Level level, std::string_view text) {
  if (level < voice.level || (voice.rank != 0 && level < Level::warning)) return;
  std::string line = "ptrain: ";
  if (level >= Level::warning && voice.world > 1) line += fmt::format("rank {}: ", voice.rank);
  if (level == Level::warning) line += "warning: ";
  if (level == Level::error) line += "error: ";
  line += text;
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace ptrain::log
