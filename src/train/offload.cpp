#include "src/train/offload.h"

#include <algorithm>
#include <cmath>

#include "parallel/plan/plan.h"
#include "src/model/activations.h"
#include "src/model/host_flat.h"

namespace ptrain {

OffloadedOptimizer::OffloadedOptimizer(Optimizer& optimizer, const FlatLayout& layout,
                                       const StateTypes& types, const Context& context)
    : optimizer_(optimizer),
      context_(context),
      host_(host_context(context)),
      order_(exchange_order(layout)),
      fetching_(context.device),
      sending_(context.device),
      ready_(context.device),
      sent_(context.device) {
  // 1. Memory.
  const int64_t elements = optimizer.state_elements();
  int64_t most = 0;
  for (const UpdateRange& range : optimizer.ranges()) most = std::max(most, range.elements.count);
  std::vector<Tensor> places(std::min(static_cast<size_t>(offload_places), order_.size()));
  Tensor m, v, master, parameters;
  const auto grant = [&](const VisitTensor& each) {
    each("m", m, {elements}, types.moments);
    each("v", v, {elements}, types.moments);
    if (types.master != types.param) each("master", master, {elements}, types.master);
    each("parameters", parameters, {elements}, types.param);
    for (Tensor& place : places) each("gradients of a bucket", place, {most}, types.grad);
  };
  int64_t bytes = 0;
  grant(add_up(bytes));
  arena_ = Arena(Buffer::staging(bytes, context.device));
  grant(take_from(arena_, "host "));
  // 2. What lies where.
  optimizer_.bind(m, v, master);
  for (size_t place = 0; place < places.size(); ++place) fetched_.emplace_back(context.device);
  for (size_t turn = 0; turn < order_.size(); ++turn) {
    const UpdateRange& range = optimizer.ranges()[static_cast<size_t>(order_[turn])];
    parameters_.add(range.elements, slice(parameters, {range.state, range.elements.count}));
    gradients_.add(range.elements, slice(places[place_of(turn)], {0, range.elements.count}));
  }
}

OffloadedOptimizer::~OffloadedOptimizer() {
  // Copies from memory that goes now. What went wrong on the device is said by whoever waits for its results.
  try {
    fetching_.synchronize();
    sending_.synchronize();
  } catch (const std::exception&) {
  }
}

void OffloadedOptimizer::read_parameters(const FlatMemory& parameters) {
  for (const UpdateRange& range : optimizer_.ranges())
    transfer(parameters.at(range.elements), parameters_.at(range.elements), *context_.stream);
  context_.stream->synchronize();
}

void OffloadedOptimizer::fetch(size_t turn, const FlatMemory& gradients) {
  const Range elements = optimizer_.ranges()[static_cast<size_t>(order_[turn])].elements;
  transfer(gradients.at(elements), gradients_.at(elements), fetching_);
  fetching_.record(fetched_[place_of(turn)]);
}

void OffloadedOptimizer::send(int bucket, const FlatMemory& parameters) {
  const Range elements = optimizer_.ranges()[static_cast<size_t>(bucket)].elements;
  transfer(parameters_.at(elements), parameters.at(elements), sending_);
  sending_.record(sent_);
  context_.stream->wait(sent_);  // what reads the new parameters
}

void OffloadedOptimizer::start(const FlatMemory& gradients) {
  context_.stream->record(ready_);
  fetching_.wait(ready_);  // gradients are whole
  for (size_t turn = 0; turn < fetched_.size(); ++turn) fetch(turn, gradients);
}

void OffloadedOptimizer::update(const AdamWStep& step, Tensor scale, const FlatMemory& parameters,
                                const FlatMemory& gradients, const std::function<void(int bucket)>& each) {
  if (std::isnan(*scale.as<double>())) {
    // The next step's gradients overwrite what start() still reads.
    for (const Event& fetched : fetched_) context_.stream->wait(fetched);
    return;
  }
  for (size_t turn = 0; turn < order_.size(); ++turn) {
    const int bucket = order_[turn];
    fetched_[place_of(turn)].synchronize();  // the CPU reads the gradients
    optimizer_.update_bucket(host_, bucket, step, scale, parameters_, gradients_);
    const size_t next = turn + fetched_.size();  // into the place that is free now
    if (next < order_.size()) fetch(next, gradients);
    send(bucket, parameters);
    each(bucket);
  }
}

}  // namespace ptrain
