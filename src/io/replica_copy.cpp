#include "src/io/replica_copy.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "kernels/base/clock.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "src/io/checkpoint.h"
#include "src/io/extents.h"
#include "src/io/file.h"
#include "src/io/find.h"
#include "src/io/json.h"
#include "src/io/manifest.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_flying = 4;
constexpr double copy_patience_s = 1;
// Not that of a save's leftovers, which the saver sweeps away.
constexpr std::string_view making_replica_prefix = ".replica-";

Tensor bytes_of(std::vector<char>& bytes) {
  return Tensor(bytes.data(), Shape{std::ssize(bytes)}, DType::u8);
}
Tensor bytes_of(std::string& text) {
  return Tensor(text.data(), Shape{std::ssize(text)}, DType::u8);
}
Tensor number(int64_t& value) {
  return Tensor(&value, Shape{1}, DType::i64);
}

void remove_directory(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) log::warn("{}: cannot be removed: {}", path.string(), error.message());
}

/// The files of a part, its manifest last.
std::vector<CopiedFile> files_of(const fs::path& directory) {
  std::vector<CopiedFile> files;
  for (const ManifestFile& file : open_manifest(directory).files) files.push_back({file.name, file.bytes});
  files.push_back({manifest_name, static_cast<int64_t>(fs::file_size(directory / manifest_name))});
  return files;
}

}  // namespace

std::vector<CopiedChunk> chunks_of_files(const std::vector<CopiedFile>& files) {
  std::vector<CopiedChunk> chunks;
  for (size_t i = 0; i < files.size(); ++i) {
    for (int64_t at = 0; at < files[i].bytes; at += chunk_bytes)
      chunks.push_back({i, at, std::min(chunk_bytes, files[i].bytes - at)});
  }
  return chunks;
}

struct ReplicaCopy::Flying {
  std::vector<char> bytes;
  CopiedChunk chunk;
  Transfer transfer;
};

/// What both ways have: a list of the files, then their chunks in order, some of them in the air.
struct ReplicaCopy::Way {
  int64_t header_bytes = 0;
  std::string header;
  std::vector<CopiedFile> files;
  std::vector<CopiedChunk> chunks;
  size_t next = 0;
  std::map<size_t, File> open;
  std::deque<Flying> flying;
};

struct ReplicaCopy::Outgoing : Way {
  std::filesystem::path directory;
  int64_t is_whole = 1;  // goes last
  bool has_ended = false;
};

struct ReplicaCopy::Incoming : Way {
  enum class Awaits { length, header, chunks, end };
  Awaits awaits = Awaits::length;
  int64_t step = 0;
  int part = 0;
  std::filesystem::path making;
  int64_t is_whole = 0;
  std::string fault;
  Transfer transfer;  // of what is awaited, chunks aside
};

ReplicaCopy::ReplicaCopy(Communicator& firsts, fs::path root, int64_t keep)
    : firsts_(firsts), root_(std::move(root)), keep_(keep) {
  check(firsts.size() > 1, "a copy for another disk needs two");
}

ReplicaCopy::~ReplicaCopy() = default;

void ReplicaCopy::begin(int64_t step, int part) {
  check(is_idle(), "a copy is begun while one is under way");
  outgoing_ = std::make_unique<Outgoing>();
  Outgoing& out = *outgoing_;
  out.directory = root_ / checkpoint_name(step);
  Json header = {{"step", step}, {"part", part}, {"files", Json::array()}};
  try {
    out.files = files_of(out.directory);
  } catch (const std::exception& error) {
    log::warn("step {} is not copied to another disk: {}", step, error.what());
    out.is_whole = 0;
  }
  for (const CopiedFile& file : out.files) header["files"].push_back({file.name, file.bytes});
  out.chunks = chunks_of_files(out.files);
  out.header = header.dump();
  out.header_bytes = std::ssize(out.header);
  out.flying.push_back({{}, {}, firsts_.isend(number(out.header_bytes), next_rank(), Lane::control)});
  out.flying.push_back({{}, {}, firsts_.isend(bytes_of(out.header), next_rank(), Lane::control)});
  incoming_ = std::make_unique<Incoming>();
  Incoming& in = *incoming_;
  in.transfer = firsts_.irecv(number(in.header_bytes), rank_before(), Lane::control);
}

void ReplicaCopy::advance(int64_t bytes, double seconds) {
  const double begin_s = now_s();
  int64_t sends = bytes, receives = bytes;
  while (!is_idle()) {
    if (outgoing_) send(sends);
    if (incoming_) receive(receives);
    if (now_s() - begin_s >= seconds || (sends <= 0 && receives <= 0)) return;
    std::this_thread::yield();
  }
}

void ReplicaCopy::finish() {
  while (!is_idle()) advance(std::numeric_limits<int64_t>::max(), copy_patience_s);
}

void ReplicaCopy::send(int64_t& bytes) {
  Outgoing& out = *outgoing_;
  while (true) {
    while (!out.flying.empty() && out.flying.front().transfer.is_done()) out.flying.pop_front();
    if (out.has_ended) {
      if (out.flying.empty()) outgoing_.reset();
      return;
    }
    if (out.flying.size() >= most_flying || bytes <= 0) return;
    if (out.next == out.chunks.size()) {
      out.has_ended = true;
      out.flying.push_back({{}, {}, firsts_.isend(number(out.is_whole), next_rank(), Lane::control)});
      continue;
    }
    Flying& flying = out.flying.emplace_back();
    flying.chunk = out.chunks[out.next++];
    flying.bytes.resize(static_cast<size_t>(flying.chunk.bytes));
    try {
      File& file = out.open[flying.chunk.file];
      if (!file) file = File::open(out.directory / out.files[flying.chunk.file].name);
      file.read_at(flying.chunk.offset, flying.bytes.data(), flying.chunk.bytes);
      if (flying.chunk.offset + flying.chunk.bytes == file.bytes()) out.open.erase(flying.chunk.file);
    } catch (const Error& error) {  // the other side waits for the bytes, whatever they are
      if (std::exchange(out.is_whole, 0) != 0) log::warn("no copy for another disk: {}", error.what());
    }
    bytes -= flying.chunk.bytes;
    flying.transfer = firsts_.isend(bytes_of(flying.bytes), next_rank(), Lane::control);
  }
}

void ReplicaCopy::receive(int64_t& bytes) {
  Incoming& in = *incoming_;
  using Awaits = Incoming::Awaits;
  while (true) {
    if (in.awaits == Awaits::chunks) {
      write_chunks(in, bytes);
      if (!in.flying.empty() || in.next < in.chunks.size()) return;
      in.transfer = firsts_.irecv(number(in.is_whole), rank_before(), Lane::control);
      in.awaits = Awaits::end;
    }
    if (!in.transfer.is_done()) return;
    if (in.awaits == Awaits::length) {
      in.header.resize(static_cast<size_t>(in.header_bytes));
      in.transfer = firsts_.irecv(bytes_of(in.header), rank_before(), Lane::control);
      in.awaits = Awaits::header;
    } else if (in.awaits == Awaits::header) {
      open_directory(in);
      in.awaits = Awaits::chunks;
    } else {
      commit(in);
      incoming_.reset();
      return;
    }
  }
}

void ReplicaCopy::open_directory(Incoming& in) {
  const Json header = parse_json(in.header, "the header of a copy");
  in.step = header["step"].get<int64_t>();
  in.part = header["part"].get<int>();
  for (const Json& file : header["files"]) in.files.push_back({file[0], file[1].get<int64_t>()});
  in.chunks = chunks_of_files(in.files);
  in.making = root_ / (std::string(making_replica_prefix) + replica_name(in.step, in.part));
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(root_))
      if (entry.path().filename().string().starts_with(making_replica_prefix)) remove_directory(entry.path());
    make_directories(in.making / "state");
    for (size_t i = 0; i < in.files.size(); ++i)
      in.open[i] = File::create(in.making / in.files[i].name, in.files[i].bytes);
  } catch (const std::exception& error) {
    in.fault = error.what();
  }
}

void ReplicaCopy::write_chunks(Incoming& in, int64_t& bytes) {
  while (true) {
    while (in.flying.size() < most_flying && in.next < in.chunks.size()) {
      Flying& flying = in.flying.emplace_back();
      flying.chunk = in.chunks[in.next++];
      flying.bytes.resize(static_cast<size_t>(flying.chunk.bytes));
      flying.transfer = firsts_.irecv(bytes_of(flying.bytes), rank_before(), Lane::control);
    }
    if (in.flying.empty() || bytes <= 0 || !in.flying.front().transfer.is_done()) return;
    const Flying& flying = in.flying.front();
    try {
      if (in.fault.empty())
        in.open[flying.chunk.file].write_at(flying.chunk.offset, flying.bytes.data(), flying.chunk.bytes);
    } catch (const Error& error) {
      in.fault = error.what();
    }
    bytes -= flying.chunk.bytes;
    in.flying.pop_front();
  }
}

void ReplicaCopy::commit(Incoming& in) {
  try {
    check(in.is_whole != 0, ExitCode::resources, "the disk that has it could not read it");
    check(in.fault.empty(), ExitCode::resources, "{}", in.fault);
    for (auto& [index, file] : in.open) {
      file.sync();
      file.close();
    }
    sync_directory(in.making / "state");
    sync_directory(in.making);
    const fs::path path = root_ / replica_name(in.step, in.part);
    remove_directory(path);
    rename_path(in.making, path);
    sync_directory(root_);
    delete_old(in.step);
  } catch (const Error& error) {
    in.open.clear();
    remove_directory(in.making);
    log::warn("step {}: no copy of part {} is kept here: {}", in.step, in.part, error.what());
  }
}

/// As the saver deletes one's own: steps above this one are of a past that the run left behind.
void ReplicaCopy::delete_old(int64_t step) {
  std::set<int64_t> kept;
  for (const ReplicaDirectory& replica : list_replicas(root_)) {
    if (replica.step > step || keep_ == 0) continue;
    if (std::ssize(kept) < keep_ || kept.contains(replica.step)) {
      kept.insert(replica.step);
    } else {
      remove_directory(replica.path);
    }
  }
}

}  // namespace ptrain
