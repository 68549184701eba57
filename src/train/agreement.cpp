#include "src/train/agreement.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ptrain {
namespace {

/// AdamW moves an element by about the learning rate, whatever the size of its gradient: where rounding turns
/// a gradient's sign, by twice that. With gradients off by `error` of their norm those are elements of at
/// most that size, whose share is `error` for flat densities; densities peak at 0, and this is the allowance.
constexpr double peak_of_density = 4;

/// Collects what is off, the first found first.
class Findings {
 public:
  /// Numbers of a step.
  void compare_numbers(size_t step, std::string_view what, double want, double got, double allowed) {
    const bool is_same = std::bit_cast<uint64_t>(want) == std::bit_cast<uint64_t>(got);
    const double size = is_same ? 0 : std::abs(got - want) / std::abs(want);
    note(step, {.what = std::string(what), .size = size, .allowed = due(allowed)}, is_same,
         fmt::format("step {}: {} {:.9g} instead of {:.9g}", step + 1, what, got, want));
  }

  /// A tensor of a step; `when` begins the message.   allowed: norm of the difference
  void compare_tensors(size_t step, std::string_view when, const std::string& what, const Fingerprint& want,
                       const Fingerprint& got, double allowed) {
    const double scale = want.norm() > 0 ? want.norm() : 1;
    const bool is_same = want.bits == got.bits;
    note(step,
         {.what = what, .size = is_same ? 0 : distance(want, got) / scale, .allowed = due(allowed) / scale},
         is_same, fmt::format("{}: {} differs", when, what));
  }

  /// What is wrong with a plan by itself.
  void note_replicas(size_t step, const Observed& seen) {
    const std::vector<std::string>& unequal = seen.unequal_replicas[step];
    if (unequal.empty() || comparison.has_difference[step]) return;
    comparison.has_difference[step] = true;
    comparison.largest[step] = {.what = "replicas of " + unequal.front()};
    if (comparison.difference.empty()) comparison.difference = objection_to_replicas(seen);
  }

  void expect(Expected expected) { expected_ = expected; }

  Comparison comparison;

 private:
  double due(double allowed) const { return expected_ == Expected::same_bits ? 0 : allowed; }

  void note(size_t step, Deviation deviation, bool is_same, const std::string& message) {
    const bool agrees = is_same || deviation.size <= deviation.allowed;  // not so for NaN
    if (agrees && !is_more(deviation, comparison.largest[step])) return;
    if (!agrees && !comparison.has_difference[step]) {
      comparison.largest[step] = deviation;
      comparison.has_difference[step] = true;
      if (comparison.difference.empty())
        comparison.difference = fmt::format(
            "{}, by {:.1e} of its size ({})", message, deviation.size,
            deviation.allowed > 0 ? fmt::format("allowed {:.1e}", deviation.allowed) : "the bits are due");
    }
    if (!comparison.has_difference[step]) comparison.largest[step] = std::move(deviation);
  }

  static bool is_more(const Deviation& a, const Deviation& b) {
    return b.allowed == 0 || a.size * b.allowed > b.size * a.allowed;
  }

  Expected expected_ = Expected::same_bits;
};

double norm_of_all(const std::vector<Fingerprint>& tensors) {
  double squares = 0;
  for (const Fingerprint& tensor : tensors) squares += tensor.squares;
  return std::sqrt(squares);
}

}  // namespace

Tolerances tolerances_of_layers(Config::Precision precision, const ModelSpec& spec) {
  const double sum = 0x1p-23 * std::sqrt(static_cast<double>(std::max(spec.C, spec.F)));
  const auto of = [&](double loss, double grad_norm, double unit) {
    const double error = unit + sum;
    const double gradient = std::min(0.5, error * std::sqrt(24 * static_cast<double>(spec.L)));
    return Tolerances{.loss = loss, .grad_norm = grad_norm, .gradient = gradient, .noise = error};
  };
  switch (precision) {
    case Config::Precision::bf16:
      return of(0x1p-8, 0x1p-6, 0x1p-7);
    case Config::Precision::fp16:
      return of(0x1p-8, 0x1p-6, 0x1p-10);
    case Config::Precision::fp8:
      return of(0x1p-5, 0x1p-3, 0x1p-3);
    case Config::Precision::fp32:
      return of(5e-6, 5e-5, 0);
    case Config::Precision::automatic:
      break;
  }
  fail(ExitCode::defect, "the precision is not resolved");
}

Tolerances tolerances_of_sums(int64_t addends) {
  const double error = 4 * 0x1p-23 * std::sqrt(static_cast<double>(addends));
  return {.loss = error, .grad_norm = error, .gradient = error, .noise = 0x1p-23};
}

std::string objection_to_replicas(const Observed& seen) {
  for (size_t i = 0; i < seen.unequal_replicas.size(); ++i) {
    const std::vector<std::string>& unequal = seen.unequal_replicas[i];
    if (unequal.empty()) continue;
    return fmt::format("{}: weight {} is not the same on all data ranks{}",
                       i == 0 ? "before step 1" : "after step 2", unequal.front(),
                       unequal.size() == 1 ? "" : fmt::format(", nor are {} others", unequal.size() - 1));
  }
  return {};
}

Comparison compare(const std::vector<std::string>& names, const Observed& reference, const Observed& other,
                   Expected expected, const AllTolerances& tolerances) {
  const Tolerances& first = expected == Expected::same_layers ? tolerances.sums : tolerances.layers;
  const Tolerances* const of_step[] = {&first, &tolerances.layers};
  Findings findings;
  // 1. What was loaded: a difference there explains all others.
  for (size_t i = 0; i < names.size(); ++i)
    findings.compare_tensors(0, "before step 1", "weight " + names[i], reference.loaded[i], other.loaded[i],
                             0);
  findings.note_replicas(0, other);
  findings.expect(expected);
  // 2. Gradients, from the head down: an error of one block goes on to those below.
  const double all = norm_of_all(reference.gradients);
  const auto allowed_gradient = [&](const Tolerances& step, size_t i) {
    return step.gradient * reference.gradients[i].norm() + step.noise * all;
  };
  for (size_t i = names.size(); i-- > 0;)
    findings.compare_tensors(0, "step 1", "gradient of " + names[i], reference.gradients[i],
                             other.gradients[i], allowed_gradient(first, i));
  // 3. The steps' numbers.
  double learning_rates = 0;
  for (size_t step = 0; step < reference.steps.size(); ++step) {
    const StepResult &want = reference.steps[step], &got = other.steps[step];
    findings.compare_numbers(step, "loss", want.loss, got.loss, of_step[step]->loss);
    findings.compare_numbers(step, "gradient norm", want.grad_norm, got.grad_norm, of_step[step]->grad_norm);
    learning_rates += want.learning_rate;
  }
  // 4. Weights, which both updates have changed.
  for (size_t i = 0; i < names.size(); ++i) {
    const Fingerprint& want = reference.weights[i];
    const double size = reference.gradients[i].norm();
    const double error =
        size > 0 ? std::min(1.0, peak_of_density * allowed_gradient(tolerances.layers, i) / size) : 1;
    const double allowed =
        2 * learning_rates * std::sqrt(static_cast<double>(want.elements) * error) + 0x1p-23 * want.norm();
    findings.compare_tensors(1, "after step 2", "weight " + names[i], want, other.weights[i], allowed);
  }
  findings.note_replicas(1, other);
  return findings.comparison;
}

}  // namespace ptrain
