// The door to cuDNN: fused attention, forward and backward, as graphs of its header-only frontend. The one
// file that includes it, since it takes half a minute to compile; a build without it takes cudnn_absent.cpp.
// Documents are not served: packed rows would have to be told as ragged sequences whose number the host does
// not know.
#define CUDNN_FRONTEND_SKIP_JSON_LIB  // graphs are not written to files
#include <cudnn.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>

#include "kernels/base/handle.h"
#include "kernels/base/log.h"
#include "kernels/base/runtime.h"
#include "kernels/base/stream.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/libraries.h"

namespace ptrain::cuda {
namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;

void destroy_handle(cudnnHandle_t handle) noexcept {
  cudnnDestroy(handle);
}

/// How a graph's tensors are named when it is run.
enum Name : int64_t { name_q = 1, name_k, name_v, name_out, name_lse, name_dout, name_dq, name_dk, name_dv };

enum class Direction { forward, backward };

/// A tensor of (B*T, heads*D) by its name.
struct Operand {
  Name name;
  Tensor tensor;
};

/// One call: what it computes and on what. lse is given apart: it has another shape.
struct Call {
  Direction direction;
  const AttentionDims& dims;
  std::array<Operand, 8> operands;  // forward: the first 4
  Tensor lse;

  std::span<const Operand> used() const {
    return {operands.data(), direction == Direction::forward ? 4u : 8u};
  }
};

/// What tells graphs apart.
using GraphKey = std::tuple<Direction, DType, std::array<int64_t, 7>, std::array<int64_t, 8>>;

GraphKey key_of(const Call& call) {
  const AttentionDims& d = call.dims;
  std::array<int64_t, 8> strides = {};
  for (size_t i = 0; i < call.used().size(); ++i) strides[i] = call.operands[i].tensor.row_stride;
  return {call.direction,
          call.operands[0].tensor.dtype,
          {d.B, d.T, d.H, d.K, d.D, d.window, std::bit_cast<int64_t>(d.scale)},
          strides};
}

/// A graph that can be run; none where cuDNN has no plan for the case.
struct Plan {
  std::unique_ptr<Graph> graph;
  int64_t workspace_bytes = 0;
};

/// A tensor (B, heads, T, D) for the graph, whose heads lie side by side in rows of tokens.
fe::graph::Tensor_attributes attributes_of(const AttentionDims& d, const Operand& operand) {
  const int64_t stride = operand.tensor.row_stride;
  fe::graph::Tensor_attributes attributes;
  attributes.set_uid(operand.name)
      .set_name("operand " + std::to_string(operand.name))
      .set_dim({d.B, operand.tensor.columns() / d.D, d.T, d.D})
      .set_stride({d.T * stride, d.D, stride, 1});
  return attributes;
}

fe::graph::Tensor_attributes attributes_of_lse(const AttentionDims& d) {
  fe::graph::Tensor_attributes attributes;
  attributes.set_uid(name_lse)
      .set_name("lse")
      .set_dim({d.B, d.H, d.T, 1})
      .set_stride({d.H * d.T, d.T, 1, 1})
      .set_data_type(fe::DataType_t::FLOAT);
  return attributes;
}

/// What is an output of a node becomes an output of the graph, placed as `attributes` say.
void make_output(const GraphTensor& tensor, const fe::graph::Tensor_attributes& attributes) {
  tensor->set_output(true)
      .set_uid(attributes.get_uid())
      .set_dim(attributes.get_dim())
      .set_stride(attributes.get_stride());
}

/// A query sees itself and what lies before it, window - 1 positions at most.
template <class Options>
void set_mask_and_scale(const AttentionDims& d, Options& options) {
  options.set_attn_scale(static_cast<float>(d.scale))
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  if (d.window > 0 && d.window < d.T) options.set_diagonal_band_left_bound(static_cast<int>(d.window));
}

void add_forward(const Call& call, Graph& graph) {
  const AttentionDims& d = call.dims;
  const auto input = [&](size_t i) { return graph.tensor(attributes_of(d, call.operands[i])); };
  auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
  set_mask_and_scale(d, options);
  const auto [out, lse] = graph.sdpa(input(0), input(1), input(2), options);
  make_output(out, attributes_of(d, call.operands[3]));
  make_output(lse, attributes_of_lse(d));
  lse->set_data_type(fe::DataType_t::FLOAT);
}

void add_backward(const Call& call, bool is_deterministic, Graph& graph) {
  const AttentionDims& d = call.dims;
  const auto input = [&](size_t i) { return graph.tensor(attributes_of(d, call.operands[i])); };
  auto options = fe::graph::SDPA_backward_attributes().set_name("attention backward");
  options.set_deterministic_algorithm(is_deterministic);
  set_mask_and_scale(d, options);
  const auto [dq, dk, dv] = graph.sdpa_backward(input(0), input(1), input(2), input(3), input(4),
                                                graph.tensor(attributes_of_lse(d)), options);
  make_output(dq, attributes_of(d, call.operands[5]));
  make_output(dk, attributes_of(d, call.operands[6]));
  make_output(dv, attributes_of(d, call.operands[7]));
}

std::string version_text() {
  const size_t version = cudnnGetVersion();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

/// Cases that are ours alone, whatever the architecture.
bool may_serve(const Call& call) {
  const AttentionDims& d = call.dims;
  const DType dtype = call.operands[0].tensor.dtype;
  // Query heads must be whole groups from the first key-value head on, or all read the only one.
  const bool has_whole_groups = d.K == 1 || (d.first_head == 0 && d.H == d.K * d.group);
  const bool is_aligned = std::ranges::all_of(call.used(), [](const Operand& operand) {
    const Tensor& x = operand.tensor;
    return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_stride % 8 == 0;
  });
  return (dtype == DType::bf16 || dtype == DType::f16) && !d.has_documents && has_whole_groups && d.T > 1 &&
         d.D % 8 == 0 && is_aligned && reinterpret_cast<uintptr_t>(call.lse.data) % 16 == 0;
}

}  // namespace

class CudnnAttention {
 public:
  CudnnAttention(cudnnHandle_t handle, bool is_deterministic)
      : handle_(handle), is_deterministic_(is_deterministic) {}

  /// Enqueues the call; false where cuDNN does not serve it.
  bool run(const Context& context, const Call& call) {
    const Plan& plan = plan_of(context, call);
    if (plan.graph == nullptr) return false;
    std::unordered_map<int64_t, void*> pointers = {{name_lse, call.lse.data}};
    for (const Operand& operand : call.used()) pointers[operand.name] = operand.tensor.data;
    const auto stream = static_cast<cudaStream_t>(context.stream->native());
    check(cudnnSetStream(handle_.get(), stream) == CUDNN_STATUS_SUCCESS, "cuDNN refuses a stream");
    const fe::error_t status = plan.graph->execute(handle_.get(), pointers, context.scratch.data);
    check(status.is_good(), "cuDNN's attention failed: {}", status.err_msg);
    return true;
  }

 private:
  const Plan& plan_of(const Context& context, const Call& call) {
    const GraphKey key = key_of(call);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
    return plans_.emplace(key, build(call, context.scratch.bytes())).first->second;
  }

  Plan build(const Call& call, int64_t scratch_bytes) const {
    const AttentionDims& d = call.dims;
    auto graph = std::make_unique<Graph>();
    graph
        ->set_io_data_type(call.operands[0].tensor.dtype == DType::bf16 ? fe::DataType_t::BFLOAT16
                                                                        : fe::DataType_t::HALF)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (call.direction == Direction::forward) {
      add_forward(call, *graph);
    } else {
      add_backward(call, is_deterministic_, *graph);
    }
    int64_t bytes = 0;
    const fe::error_t status = choose_plan(*graph, bytes);
    const char* what = call.direction == Direction::forward ? "forward" : "backward";
    if (status.is_bad()) {
      log::debug("cuDNN {} does not serve attention {} of {} x {} tokens, {} heads of {}: {}", version_text(),
                 what, d.B, d.T, d.H, d.D, status.err_msg);
      return {};
    }
    if (bytes > scratch_bytes) {
      log::warn(
          "cuDNN's attention {} of {} x {} tokens, {} heads of {}{} wants {} bytes of scratch and {} are "
          "granted: the own kernels take its place",
          what, d.B, d.T, d.H, d.D, is_deterministic_ ? ", deterministic," : "", bytes, scratch_bytes);
      return {};
    }
    return {std::move(graph), bytes};
  }

  /// The heuristics' first choice that the device supports, and its scratch.
  fe::error_t choose_plan(Graph& graph, int64_t& bytes) const {
    fe::error_t status = graph.validate();
    if (status.is_good()) status = graph.build_operation_graph(handle_.get());
    if (status.is_good()) status = graph.create_execution_plans({fe::HeurMode_t::A});
    if (status.is_good()) status = graph.check_support();
    if (status.is_good()) status = graph.build_plans();
    if (status.is_good()) status = graph.get_workspace_size(bytes);
    return status;
  }

  Handle<cudnnHandle_t, destroy_handle> handle_;
  bool is_deterministic_;
  std::map<GraphKey, Plan> plans_;
};

void DeleteCudnnAttention::operator()(CudnnAttention* attention) const {
  delete attention;
}

int64_t cudnn_version() {
  return static_cast<int64_t>(cudnnGetVersion());
}

CudnnAttentionHandle make_cudnn_attention(Device device, const LibraryOptions& options) {
  if (options.uses_own_attention) return nullptr;
  runtime::use_device(device.index);
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = cudnnCreate(&handle);
  check(status == CUDNN_STATUS_SUCCESS, ExitCode::resources, "cuDNN {} does not start on GPU {}: {}",
        version_text(), device.index, cudnnGetErrorString(status));
  return CudnnAttentionHandle(new CudnnAttention(handle, options.is_deterministic));
}

namespace {

bool run(Context& context, const Call& call) {
  CudnnAttention* attention = libraries_of(context).attention.get();
  return attention != nullptr && may_serve(call) && attention->run(context, call);
}

}  // namespace

bool cudnn_attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                             Tensor, Tensor out, Tensor lse) {
  return run(context,
             {Direction::forward, dims, {{{name_q, q}, {name_k, k}, {name_v, v}, {name_out, out}}}, lse});
}

bool cudnn_attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                              Tensor, Tensor out, Tensor lse, Tensor dout, Tensor dq, Tensor dk, Tensor dv) {
  return run(context, {Direction::backward,
                       dims,
                       {{{name_q, q},
                         {name_k, k},
                         {name_v, v},
                         {name_out, out},
                         {name_dout, dout},
                         {name_dq, dq},
                         {name_dk, dk},
                         {name_dv, dv}}},
                       lse});
}

}  // namespace ptrain::cuda
