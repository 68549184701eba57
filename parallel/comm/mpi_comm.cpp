// The wire over MPI: non-blocking messages that are tested and never waited for. The main thread alone may
// use it. Communicators are not freed one by one: destructors do not communicate, and MPI_Finalize frees
// them.
#include <sched.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "parallel/comm/mpi_door.h"
#include "parallel/comm/wire.h"
#include "parallel/comm/wired_comm.h"

namespace ptrain {

void mpi_check(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(ExitCode::resources, "{} failed: {}. A rank or the network between the hosts is gone.", what, text);
}

namespace {

class MpiWire final : public Wire {
 public:
  MpiWire(MPI_Comm comm, const MpiOptions& options) : comm_(comm), options_(options) {
    mpi_check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    mpi_check(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(comm, &size_), "MPI_Comm_size");
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  int post_send(const void* data, int64_t bytes, int peer, int tag) override {
    return post(bytes, peer, tag, [&](int64_t offset, int count, MPI_Request* request) {
      mpi_check(
          MPI_Isend(static_cast<const char*>(data) + offset, count, MPI_BYTE, peer, tag, comm_, request),
          "MPI_Isend");
    });
  }

  int post_receive(void* data, int64_t bytes, int peer, int tag) override {
    return post(bytes, peer, tag, [&](int64_t offset, int count, MPI_Request* request) {
      mpi_check(MPI_Irecv(static_cast<char*>(data) + offset, count, MPI_BYTE, peer, tag, comm_, request),
                "MPI_Irecv");
      parts_.back().expected = count;
    });
  }

  bool is_done(int ticket) const override { return pending_[static_cast<size_t>(ticket)] == 0; }
  void release(int ticket) noexcept override;
  void progress() override;
  void relax(int times) override;
  std::unique_ptr<Wire> split(int color, std::span<const int> members) override;

 private:
  // What belongs to a request: one of the pieces that a message was cut into.
  struct Part {
    int ticket = 0;
    int peer = 0;
    int expected = -1;  // bytes; -1 for a send
  };

  template <class Start>
  int post(int64_t bytes, int peer, int tag, Start start);
  int take_ticket();

  MPI_Comm comm_;
  MpiOptions options_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> pending_;  // requests under way, by ticket
  std::vector<int> free_;
  std::vector<MPI_Request> requests_;
  std::vector<Part> parts_;  // of each request
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

template <class Start>
int MpiWire::post(int64_t bytes, int peer, int, Start start) {
  const int ticket = take_ticket();
  int64_t offset = 0;
  do {
    const auto count = static_cast<int>(std::min(bytes - offset, options_.max_message_bytes));
    requests_.push_back(MPI_REQUEST_NULL);
    parts_.push_back({ticket, peer});
    start(offset, count, &requests_.back());
    ++pending_[static_cast<size_t>(ticket)];
    offset += count;
  } while (offset < bytes);
  return ticket;
}

int MpiWire::take_ticket() {
  if (free_.empty()) {
    pending_.push_back(0);
    return static_cast<int>(pending_.size()) - 1;
  }
  const int ticket = free_.back();
  free_.pop_back();
  return ticket;
}

// MPI goes on with the requests of an unfinished message; a rank that drops one is about to end the job.
void MpiWire::release(int ticket) noexcept {
  if (is_done(ticket)) free_.push_back(ticket);
}

void MpiWire::progress() {
  if (requests_.empty()) return;
  finished_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                finished_.data(), statuses_.data());
  if (code != MPI_ERR_IN_STATUS) mpi_check(code, "MPI_Testsome");
  for (int i = 0; i < count; ++i) {
    const Part& part = parts_[static_cast<size_t>(finished_[static_cast<size_t>(i)])];
    const MPI_Status& status = statuses_[static_cast<size_t>(i)];
    int received = 0;
    if (part.expected >= 0) MPI_Get_count(&status, MPI_BYTE, &received);
    check(code != MPI_ERR_IN_STATUS || status.MPI_ERROR != MPI_ERR_TRUNCATE,
          "rank {} sent more bytes to rank {} than the {} that it expected", part.peer, rank_, part.expected);
    if (code == MPI_ERR_IN_STATUS) mpi_check(status.MPI_ERROR, "a message");
    check(part.expected < 0 || received == part.expected,
          "rank {} sent {} bytes to rank {}, which expected {}", part.peer, received, rank_, part.expected);
    --pending_[static_cast<size_t>(part.ticket)];
  }
  if (count == 0) return;
  size_t kept = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    requests_[kept] = requests_[i];
    parts_[kept++] = parts_[i];
  }
  requests_.resize(kept);
  parts_.resize(kept);
}

// At first the time slice is given away where ranks share cores: that is what a short message needs to get
// through. Whoever waits longer sleeps, so that a rank that computes has the core; the naps grow with the
// waiting, to a fifth of a millisecond after some 50 ms.
void MpiWire::relax(int times) {
  const int patient_rounds = options_.is_crowded ? 200 : 5000;
  if (times < patient_rounds) {
    if (options_.is_crowded || times % 16 == 15) sched_yield();
    return;
  }
  const int64_t nap_ns = std::min<int64_t>(20'000 + (times - patient_rounds) * int64_t{500}, 200'000);
  const timespec nap{0, nap_ns};
  nanosleep(&nap, nullptr);
}

std::unique_ptr<Wire> MpiWire::split(int color, std::span<const int> members) {
  const auto place = std::find(members.begin(), members.end(), rank_);
  MPI_Comm group = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(comm_, members.empty() ? MPI_UNDEFINED : color,
                           static_cast<int>(place - members.begin()), &group),
            "MPI_Comm_split");
  if (group == MPI_COMM_NULL) return nullptr;
  return std::make_unique<MpiWire>(group, options_);
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm comm, const MpiOptions& options) {
  return std::make_unique<WiredCommunicator>(std::make_unique<MpiWire>(comm, options));
}

}  // namespace ptrain
