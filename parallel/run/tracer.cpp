#include "parallel/run/tracer.h"

#include <utility>

#include "kernels/base/error.h"

namespace ptrain {

std::string_view name_of(SpanCategory category) {
  switch (category) {
    case SpanCategory::phase:
      return "phase";
    case SpanCategory::compute:
      return "compute";
    case SpanCategory::transfer:
      return "transfer";
    case SpanCategory::collective:
      return "collective";
    case SpanCategory::tensor:
      return "tensor";
  }
  fail(ExitCode::defect, "no category of spans has the number {}", static_cast<int>(category));
}

SpanCategory category_of(ActionKind kind) {
  if (is_send(kind) || is_receive(kind)) return SpanCategory::transfer;
  return kind == ActionKind::reduce ? SpanCategory::collective : SpanCategory::compute;
}

Tracer::Tracer(Clock now_s, SpanTimes times, size_t room)
    : now_s_(std::move(now_s)), times_(times), room_(room) {
  spans_.reserve(room);
}

void Tracer::begin(int64_t step) {
  spans_.clear();
  dropped_ = 0;
  step_ = step;
  is_on_ = true;
}

void Tracer::add(const Span& span) {
  if (!is_on_) return;
  if (spans_.size() < room_) {
    spans_.push_back(span);
  } else {
    ++dropped_;
  }
}

void Tracer::note(const Action& action, double begin_s, double end_s) {
  add({.name = name_of(action.kind),
       .category = category_of(action.kind),
       .begin_s = begin_s,
       .end_s = end_s,
       .step = step_,
       .chunk = action.chunk,
       .micro = action.micro,
       .bucket = action.bucket,
       .peer = action.peer});
}

void Tracer::note(std::string_view name, SpanCategory category, double begin_s, double end_s, int bucket) {
  add({.name = name,
       .category = category,
       .begin_s = begin_s,
       .end_s = end_s,
       .step = step_,
       .bucket = bucket});
}

void WatchedTransfer::close() {
  Tracer* const tracer = std::exchange(tracer_, nullptr);
  if (tracer != nullptr) tracer->note(name_, category_, begin_s_, tracer->now_s(), bucket_);
}

}  // namespace ptrain
