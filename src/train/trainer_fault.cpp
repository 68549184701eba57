// What a trainer knows of numbers that are not finite: where they come from, and for tests how to make some.
// Not for what to do about them (judge). Declared in trainer.h.
#include <algorithm>
#include <array>
#include <limits>

#include "kernels/base/fault.h"
#include "kernels/base/stream.h"
#include "kernels/ops/checksum.h"
#include "kernels/ops/elementwise.h"
#include "src/model/host_flat.h"
#include "src/train/trainer.h"

namespace ptrain {

/// What this rank has found first. Smaller is nearer to the cause: damage that was there before, then the
/// loss, then gradients in the order of backward; of equal units the first micro-batch.
struct Trainer::Probe {
  enum Member { what, minus_unit, micro, piece, rank };
  using Key = std::array<int64_t, 5>;
  static constexpr int64_t unknown_micro = std::numeric_limits<int64_t>::max();

  Key first = {static_cast<int64_t>(FaultSite::What::nothing), 0, 0, 0, 0};

  void note(FaultSite::What found, int64_t unit, int64_t piece, int64_t micro) {
    first = std::min(first, Key{static_cast<int64_t>(found), -unit, micro, piece, 0});
  }
};

/// What add(context, sum) makes of a sum that is 0 and lies on `device`. The host waits for it once.
template <class Number, class Add>
Number Trainer::sum_on(Device device, const Add& add) {
  static_assert(sizeof(Number) == sizeof(double), "it takes the place of one of the scalars");
  Number sum = 0;
  const Tensor total(&sum, {1}, dtype_of<Number>);
  if (device.kind == DeviceKind::cpu) {  // also an offloaded optimizer's
    Context host = host_context(context_);
    add(host, total);
  } else {
    const Tensor slot = slice(scalars_, {0, 1});
    fill(context_, slot, 0);
    const Tensor there(slot.data, {1}, dtype_of<Number>, slot.device);
    add(context_, there);
    to_host(context_, there, total);
  }
  return sum;
}

/// Whether the norm of all `values`, which lie on one device, is not below `limit`.
bool Trainer::is_beyond(const std::vector<Tensor>& values, double limit) {
  if (values.empty()) return false;
  const auto squares = sum_on<double>(values.front().device, [&](Context& context, Tensor sum) {
    for (const Tensor& each : values) sum_of_squares(context, each, sum);
  });
  return !(squares < limit * limit);
}

bool Trainer::holds_finite_state() {
  finish_exchange();
  std::vector<Tensor> state = {optimizer_.m(), optimizer_.v()};
  if (optimizer_.master() && optimizer_.master().dtype == DType::f32) state.push_back(optimizer_.master());
  return !is_beyond({model_.parameters()}, largest_norm) && !is_beyond(state, largest_norm);
}

uint64_t Trainer::checksum(std::span<const WeighedPart> parts) {
  if (parts.empty()) return 0;
  const auto sum = sum_on<int64_t>(parts.front().values.device, [&](Context& context, Tensor all) {
    for (const WeighedPart& part : parts) ptrain::checksum(context, part.values, all, part.factor);
  });
  return static_cast<uint64_t>(sum);
}

void Trainer::look_at_state(Probe& probe) {
  finish_exchange();
  using What = FaultSite::What;
  const FlatLayout& layout = model_.layout();
  const auto look = [&](What what, const FlatPiece& piece, Tensor values) {
    if (is_beyond({values}, largest_norm)) probe.note(what, piece.unit, piece.index, Probe::unknown_micro);
  };
  // Replicas of the others too, where they are held.
  for (const FlatPiece& piece : layout.pieces)
    if (model_.held_parameters() == Held::whole)
      look(What::weight, piece, model_.owned_parameters().at(piece.elements));
  for (const UpdateSegment& segment : optimizer_.segments()) {
    const FlatPiece& piece = layout.pieces[static_cast<size_t>(segment.weight)];
    const Range state{segment.state, segment.elements.count};
    look(What::weight, piece, model_.owned_parameters().at(segment.elements));
    look(What::first_moment, piece, slice(optimizer_.m(), state));
    look(What::second_moment, piece, slice(optimizer_.v(), state));
  }
}

void Trainer::look_at_loss(int micro) {
  if (probe_ == nullptr || coordinate().tensor != 0) return;
  const int64_t head = model_.layout().pieces.back().unit;
  if (is_beyond({slice(model_.loss(), {loss_of(micro), 1})}, std::numeric_limits<double>::infinity()))
    probe_->note(FaultSite::What::loss, head, 0, micro);
}

/// micro -1: of the micro-batch under way where it is known, of them all where they are summed up.
void Trainer::look_at_gradients(Range units, int micro) {
  if (probe_ == nullptr) return;
  const FlatLayout& layout = model_.layout();
  for (const FlatPiece& piece : layout.pieces) {
    if (piece.unit < units.begin || piece.unit >= units.end()) continue;
    if (piece.elements.begin >= layout.trainable_elements) continue;
    if (is_beyond({model_.written_gradients().at(piece.elements)}, largest_norm * loss_scale_.value()))
      probe_->note(FaultSite::What::gradient, piece.unit, piece.index,
                   micro < 0 ? Probe::unknown_micro : micro);
  }
}

/// A collective: the first of what all ranks have found.
FaultSite Trainer::first_of(const Probe& probe) {
  const int ranks = comms_.world->size();
  constexpr int64_t width = std::tuple_size_v<Probe::Key>;
  Probe::Key mine = probe.first;
  mine[Probe::rank] = rank_;
  std::vector<Probe::Key> all(static_cast<size_t>(ranks));
  comms_.world->all_gather(Tensor(mine.data(), {width}, DType::i64),
                           Tensor(all.front().data(), {width * ranks}, DType::i64));
  const Probe::Key first = *std::ranges::min_element(all);
  FaultSite site{.what = static_cast<FaultSite::What>(first[Probe::what])};
  if (site.what == FaultSite::What::nothing) return site;
  site.rank = static_cast<int>(first[Probe::rank]);
  if (site.what != FaultSite::What::loss) {
    const Unit& unit = plan_.workload.units[static_cast<size_t>(-first[Probe::minus_unit])];
    site.tensor = unit.pieces[static_cast<size_t>(first[Probe::piece])].piece.name;
  }
  if (site.what != FaultSite::What::loss && site.what != FaultSite::What::gradient) return site;
  site.data = plan_.mesh.coordinate_of(site.rank).data;
  if (first[Probe::micro] != Probe::unknown_micro) site.micro = static_cast<int>(first[Probe::micro]);
  return site;
}

FaultSite Trainer::find_fault(const StepResult& step) {
  Probe probe;
  look_at_state(probe);
  FaultSite site = first_of(probe);
  if (site.what != FaultSite::What::nothing || step.supervised_tokens == 0) return site;
  // The rows are still there. Nothing of this is part of a trace.
  Tracer* const tracer = tracer_;
  set_tracer(nullptr);
  probe_ = &probe;
  planted_ = planted_value(step.step);
  model_.clear();
  play(train_, Pass::train, loss_scale_.value() / static_cast<double>(step.supervised_tokens));
  gradients_.finish();
  tied_.run(context_);
  gradients_.gather();
  probe_ = nullptr;
  set_tracer(tracer);
  return first_of(probe);
}

/// The wrong gradient that this rank was asked to have in this step.
std::optional<float> Trainer::planted_value(int64_t step) {
  constexpr std::string_view point = "gradient";
  if (fault::is_planted("nan", point, step)) return std::numeric_limits<float>::quiet_NaN();
  if (fault::is_planted("inf", point, step)) return std::numeric_limits<float>::infinity();
  if (fault::is_planted("huge", point, step)) return 1e30f;
  return std::nullopt;
}

void Trainer::flip_planted(int64_t step) {
  if (!fault::is_planted("flip", "weight", step)) return;
  finish_exchange();
  const bool is_whole = model_.held_parameters() == Held::whole;
  const int64_t first = is_whole ? 0 : shard_of(model_.layout(), 0, coordinate().data).begin;
  const Tensor weight = model_.owned_parameters().at({first, 1});
  const OwnedTensor host({1}, weight.dtype);
  const auto wait = [&] {
    if (context_.stream != nullptr) context_.stream->synchronize();
  };
  transfer(context_, weight, host.view);
  wait();
  static_cast<char*>(host.view.data)[0] ^= 8;  // a low one: no loss tells
  transfer(context_, host.view, weight);
  wait();
}

/// Into the first gradient of a bucket that is whole on this rank and not summed yet.
void Trainer::plant(int bucket) {
  if (!planted_) return;
  float value = *planted_;
  planted_.reset();
  const Range elements = model_.layout().buckets[static_cast<size_t>(bucket)].elements;
  from_host(context_, Tensor(&value, {1}, DType::f32), model_.written_gradients().at({elements.begin, 1}));
}

}  // namespace ptrain
