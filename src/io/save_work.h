// What one rank does for one checkpoint, phase by phase, in items of at most a chunk or one call to the disk:
// who does them may change in between. Never communicates; when a phase may begin is checkpoint_saver.h's.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "src/io/checkpoint.h"
#include "src/io/hf_write.h"

namespace ptrain {

enum class SavePhase { none, prepare, write, commit, clean, discard };

class SaveWork {
 public:
  /// `rank`: in the world, for the names of files. `slices`: what their tensors hold stays until the save is
  /// over. Errors (defect): a slice of a tensor that the request does not have.
  SaveWork(const SavePart& part, int rank, SaveRequest request, std::span<const StateSlice> slices);

  const SaveRequest& request() const { return request_; }
  std::filesystem::path path() const { return request_.root / checkpoint_name(request_.step); }
  /// Bytes that this rank writes, at most.
  int64_t bytes() const;
  /// The same of all ranks of the part; to be known before prepare.
  void set_part_bytes(int64_t bytes) { part_bytes_ = bytes; }

  void enter(SavePhase phase);
  /// Does the phase's next item; false where nothing is left. Errors: ExitCode::resources with the path, what
  /// the save needs and what is free; ExitCode::input where a small file cannot be read.
  bool advance();

  /// What this rank has written, for the leader. Made by the write phase, empty before.
  const std::string& share() const { return share_; }
  /// On the leader, before commit: all ranks' shares.
  void set_shares(std::vector<std::string> shares) { shares_ = std::move(shares); }

 private:
  /// A slice on its way into a file.
  struct Outgoing {
    Manifest::Kind kind;
    std::string name;
    Shape shape;
    DType dtype;  // in the file
    Tensor source;
    StoredSlice stored;
  };

  void add(std::function<void()> item) { items_.push_back(std::move(item)); }
  void plan_prepare();
  void plan_write();
  void plan_commit();
  void plan_clean();
  void check_room() const;
  void lay_out_state();
  void write_chunk(size_t outgoing, int64_t chunk);
  void sync_files();
  void make_share();
  void write_manifest();
  const File& file(const std::string& name);
  std::string state_file() const;

  bool is_leader_ = false;
  int rank_ = 0;
  ManifestPart part_;
  SaveRequest request_;
  std::vector<StateSlice> slices_;
  std::filesystem::path making_;
  int64_t part_bytes_ = 0;
  std::deque<std::function<void()>> items_;
  HfPlan plan_;
  std::vector<std::string> small_files_;  // copied by the leader
  std::vector<Outgoing> outgoing_;
  std::map<std::string, File> files_;
  std::vector<char> staging_;
  std::string share_;
  std::vector<std::string> shares_;
};

}  // namespace ptrain
