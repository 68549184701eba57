// The wire between threads of one process: mailboxes behind one lock. See thread_comm.h for what it is for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/comm/wire.h"

namespace ptrain {

/// What all threads of a world share.
class ThreadWorld {
 public:
  explicit ThreadWorld(int ranks);

  int size() const { return static_cast<int>(seats_.size()); }
  /// A rank has ended and will send nothing more.
  void leave(int rank);
  /// The first call counts: everybody who communicates from now on gets an Error with this text.
  void fail_all(int rank, const std::string& text, std::exception_ptr failure);
  std::exception_ptr failure();

 private:
  friend class ThreadWire;

  struct Message {
    char* data = nullptr;  // sends only read it
    int64_t bytes = 0;
    int owner = 0;  // world rank
    bool is_send = false;
    bool is_done = false;
    bool is_free = true;
    std::tuple<int, int, int, int> address;  // group, sender, receiver (world ranks), tag
  };
  // Either sends that no receive has met, or receives that no send has met.
  using Mailbox = std::deque<Message*>;

  struct Seat {
    std::condition_variable wake;
    int64_t events = 0;  // messages of this rank that were completed
    int64_t seen = 0;    // of those, known to the rank
    bool is_waiting = false;
    bool has_left = false;
  };

  // All of these with the lock held.
  void check_alive() const;
  void deliver(Message& a, Message& b);
  void bump(int rank);
  void fail_if_all_wait();
  void fail_world(ExitCode code, const std::string& text);
  void set_failure(const std::string& text, std::exception_ptr failure);

  std::mutex mutex_;
  std::deque<Seat> seats_;  // by world rank
  std::map<std::tuple<int, int, int, int>, Mailbox> mailboxes_;
  std::map<std::tuple<int, int, int>, int> groups_;  // (parent group, number of the split, color) -> id
  std::exception_ptr failure_;
  std::string failure_text_;
};

class ThreadWire final : public Wire {
 public:
  /// The wire of `rank` over all ranks of the world.
  ThreadWire(std::shared_ptr<ThreadWorld> world, int rank);
  ~ThreadWire() override;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  int post_send(const void* data, int64_t bytes, int peer, int tag) override;
  int post_receive(void* data, int64_t bytes, int peer, int tag) override;
  bool is_done(int ticket) const override;
  void release(int ticket) noexcept override;
  void progress() override;
  void relax(int times) override;
  std::unique_ptr<Wire> split(int color, std::span<const int> members) override;

 private:
  using Message = ThreadWorld::Message;

  ThreadWire(std::shared_ptr<ThreadWorld> world, int group, int rank, std::vector<int> members);
  int post(char* data, int64_t bytes, bool is_send, int from, int to, int tag);
  int take_slot();
  void take_back(Message& message);
  int self() const { return members_[static_cast<size_t>(rank_)]; }

  std::shared_ptr<ThreadWorld> world_;
  int group_ = 0;
  int rank_ = 0;
  std::vector<int> members_;  // world ranks by rank
  int num_splits_ = 0;
  std::deque<Message> messages_;  // by ticket; a deque, since mailboxes point into it
  std::vector<int> free_;
};

}  // namespace ptrain
