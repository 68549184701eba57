// checkpoint.replicas: a node's part of a checkpoint, copied to the next node's disk over the wires while
// training goes on, a few chunks at each step's end. A copy is a directory of its own, replica-STEP-PART,
// which is there whole or not at all. Finding it again is find.h's.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// One side of a copy: bytes of files in a fixed order, chunk by chunk.
struct CopiedFile {
  std::string name;  // below the directory
  int64_t bytes = 0;
};
struct CopiedChunk {
  size_t file = 0;
  int64_t offset = 0;
  int64_t bytes = 0;

  bool operator==(const CopiedChunk&) const = default;
};
/// All bytes of the files in chunks of at most 4 MiB. Pure.
std::vector<CopiedChunk> chunks_of_files(const std::vector<CopiedFile>& files);

class ReplicaCopy {
 public:
  /// firsts: the first rank of every disk, in the order of the disks, two at least; root:
  /// <output>/checkpoints on this one's. keep: steps whose copies stay, as of one's own parts; 0 = all.
  ReplicaCopy(Communicator& firsts, std::filesystem::path root, int64_t keep);
  ~ReplicaCopy();

  /// Every rank of `firsts` calls: its own part of a step goes to the next disk, that of the disk before
  /// comes here. The last copy must be done.
  void begin(int64_t step, int part);
  bool is_idle() const { return !outgoing_ && !incoming_; }
  /// Moves what can be moved, at most about `bytes` each way and for about `seconds`; never waits for another
  /// rank longer. What goes wrong with files is a warning: the copy is then missing, the checkpoint itself is
  /// not touched.
  void advance(int64_t bytes, double seconds);
  /// Waits until both ways are done.
  void finish();

 private:
  struct Flying;
  struct Way;
  struct Outgoing;
  struct Incoming;

  int next_rank() const { return (firsts_.rank() + 1) % firsts_.size(); }
  int rank_before() const { return (firsts_.rank() + firsts_.size() - 1) % firsts_.size(); }
  void send(int64_t& bytes);
  void receive(int64_t& bytes);
  void open_directory(Incoming& in);
  void write_chunks(Incoming& in, int64_t& bytes);
  void commit(Incoming& in);
  void delete_old(int64_t step);

  Communicator& firsts_;
  std::filesystem::path root_;
  int64_t keep_;
  std::unique_ptr<Outgoing> outgoing_;
  std::unique_ptr<Incoming> incoming_;
};

}  // namespace ptrain
