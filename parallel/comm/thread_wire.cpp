#include "parallel/comm/thread_wire.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace ptrain {

// --- The world ---------------------------------------------------------------------------------------------

ThreadWorld::ThreadWorld(int ranks) : seats_(static_cast<size_t>(ranks)) {}

void ThreadWorld::leave(int rank) {
  const std::lock_guard lock(mutex_);
  seats_[static_cast<size_t>(rank)].has_left = true;
  fail_if_all_wait();
}

void ThreadWorld::fail_all(int rank, const std::string& text, std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  set_failure(fmt::format("rank {} failed: {}", rank, text), failure);
}

std::exception_ptr ThreadWorld::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ThreadWorld::fail_world(ExitCode code, const std::string& text) {
  set_failure(text, std::make_exception_ptr(Error(code, text, std::source_location::current())));
}

void ThreadWorld::set_failure(const std::string& text, std::exception_ptr failure) {
  if (failure_) return;
  failure_ = failure;
  failure_text_ = text;
  for (Seat& seat : seats_) {
    seat.is_waiting = false;
    seat.wake.notify_all();
  }
}

void ThreadWorld::check_alive() const {
  check(!failure_, ExitCode::defect, "{}", failure_text_);
}

void ThreadWorld::deliver(Message& a, Message& b) {
  Message& send = a.is_send ? a : b;
  Message& receive = a.is_send ? b : a;
  if (send.bytes != receive.bytes) {
    // Known to all before this rank unwinds: nobody may copy into memory that goes away with it.
    fail_world(ExitCode::defect, fmt::format("rank {} sent {} bytes to rank {}, which expected {}",
                                             send.owner, send.bytes, receive.owner, receive.bytes));
    check_alive();
  }
  if (send.bytes > 0) std::memcpy(receive.data, send.data, static_cast<size_t>(send.bytes));
  send.is_done = receive.is_done = true;
  bump(send.owner);
  bump(receive.owner);
}

void ThreadWorld::bump(int rank) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  ++seat.events;
  if (!seat.is_waiting) return;
  seat.is_waiting = false;
  seat.wake.notify_all();
}

// A rank that waits has looked at all that was done for it: only another rank can wake it. So nothing will
// happen any more once every rank waits or has left.
void ThreadWorld::fail_if_all_wait() {
  int waiting = 0;
  std::string who;
  for (size_t rank = 0; rank < seats_.size(); ++rank) {
    if (!seats_[rank].is_waiting && !seats_[rank].has_left) return;
    if (!seats_[rank].is_waiting) continue;
    who += fmt::format("{}{}", waiting++ > 0 ? ", " : "", rank);
  }
  if (waiting == 0 || failure_) return;
  fail_world(ExitCode::hang, fmt::format("deadlock: ranks {} wait and nobody is left to send", who));
}

// --- One rank's wire ---------------------------------------------------------------------------------------

namespace {

std::vector<int> first_integers(int count) {
  std::vector<int> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

ThreadWire::ThreadWire(std::shared_ptr<ThreadWorld> world, int rank)
    : ThreadWire(world, 0, rank, first_integers(world->size())) {}

ThreadWire::ThreadWire(std::shared_ptr<ThreadWorld> world, int group, int rank, std::vector<int> members)
    : world_(std::move(world)), group_(group), rank_(rank), members_(std::move(members)) {}

ThreadWire::~ThreadWire() {
  const std::lock_guard lock(world_->mutex_);
  for (Message& message : messages_) take_back(message);
}

int ThreadWire::post_send(const void* data, int64_t bytes, int peer, int tag) {
  return post(static_cast<char*>(const_cast<void*>(data)), bytes, true, self(),
              members_[static_cast<size_t>(peer)], tag);
}

int ThreadWire::post_receive(void* data, int64_t bytes, int peer, int tag) {
  return post(static_cast<char*>(data), bytes, false, members_[static_cast<size_t>(peer)], self(), tag);
}

int ThreadWire::post(char* data, int64_t bytes, bool is_send, int from, int to, int tag) {
  const std::lock_guard lock(world_->mutex_);
  world_->check_alive();
  const int ticket = take_slot();
  Message& message = messages_[static_cast<size_t>(ticket)];
  message = {data, bytes, self(), is_send, false, false, {group_, from, to, tag}};
  ThreadWorld::Mailbox& box = world_->mailboxes_[message.address];
  if (box.empty() || box.front()->is_send == is_send) {
    box.push_back(&message);
    return ticket;
  }
  Message& other = *box.front();
  box.pop_front();
  if (box.empty()) world_->mailboxes_.erase(message.address);
  world_->deliver(message, other);
  return ticket;
}

int ThreadWire::take_slot() {
  if (free_.empty()) {
    messages_.emplace_back();
    return static_cast<int>(messages_.size()) - 1;
  }
  const int ticket = free_.back();
  free_.pop_back();
  return ticket;
}

bool ThreadWire::is_done(int ticket) const {
  const std::lock_guard lock(world_->mutex_);
  return messages_[static_cast<size_t>(ticket)].is_done;
}

void ThreadWire::release(int ticket) noexcept {
  const std::lock_guard lock(world_->mutex_);
  take_back(messages_[static_cast<size_t>(ticket)]);
  free_.push_back(ticket);
}

// After this nobody touches the message's memory.
void ThreadWire::take_back(Message& message) {
  if (!message.is_free && !message.is_done) {
    const auto found = world_->mailboxes_.find(message.address);
    if (found != world_->mailboxes_.end()) {
      std::erase(found->second, &message);
      if (found->second.empty()) world_->mailboxes_.erase(found);
    }
  }
  message.is_free = true;
}

void ThreadWire::progress() {
  const std::lock_guard lock(world_->mutex_);
  world_->check_alive();
}

void ThreadWire::relax(int) {
  std::unique_lock lock(world_->mutex_);
  world_->check_alive();
  ThreadWorld::Seat& seat = world_->seats_[static_cast<size_t>(self())];
  if (seat.seen == seat.events) {
    seat.is_waiting = true;
    world_->fail_if_all_wait();
    seat.wake.wait(lock, [&] { return !seat.is_waiting; });
    world_->check_alive();
  }
  seat.seen = seat.events;  // the caller now looks at everything once more before it comes back
}

std::unique_ptr<Wire> ThreadWire::split(int color, std::span<const int> members) {
  const int number = num_splits_++;
  if (members.empty()) return nullptr;
  std::vector<int> world_ranks;
  int new_rank = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i] == rank_) new_rank = static_cast<int>(i);
    world_ranks.push_back(members_[static_cast<size_t>(members[i])]);
  }
  const std::lock_guard lock(world_->mutex_);
  const auto next_id = static_cast<int>(world_->groups_.size()) + 1;
  const int id = world_->groups_.try_emplace({group_, number, color}, next_id).first->second;
  return std::unique_ptr<Wire>(new ThreadWire(world_, id, new_rank, std::move(world_ranks)));
}

}  // namespace ptrain
