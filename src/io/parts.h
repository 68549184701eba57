// The parts of a checkpoint that nodes wrote to disks of their own: which copies of them make up a whole one,
// and one manifest of all. Pure; who looks for them is find.h.
#pragma once

#include <string>
#include <vector>

#include "src/io/manifest.h"
#include "src/io/storage.h"

namespace ptrain {

/// A part of a step as a disk holds it: the node's own, or a copy that it keeps for another.
struct PartCopy {
  ManifestPart part;  // of == 0: its manifest does not say, see fault
  int disk = 0;
  std::string directory;  // its name below checkpoints/
  std::string fault;      // why it is of no use; empty where it looks whole

  bool operator==(const PartCopy&) const = default;
};

struct PartChoice {
  std::vector<PartCopy> copies;  // of one save, every part at least once; empty where parts are missing
  std::string missing;           // then: what and where, for a message
};

/// Those of the copies of a step that belong to one save and hold every part. Of two such saves the later.
PartChoice choose_parts(std::vector<PartCopy> found, const Disks& disks);

/// The manifest of a whole checkpoint from those of its parts; files that every part has appear once, and
/// what part 0 says of the run counts. Errors (ExitCode::input, naming `where`): parts of different saves,
/// one twice, something missing.
Manifest join_parts(const std::vector<Manifest>& parts, std::string_view where);

/// A name for one save, later than those of earlier saves: "0005f3c2a91b7e40-1c3f".
std::string new_save_name();

}  // namespace ptrain
