// The CPU twins of the ops: same names, parameters and meaning as in kernels/ops, in namespace cpu. Shapes
// have been checked by kernels/dispatch. Not for callers outside kernels: they go through kernels/ops.
#pragma once

#include "kernels/ops/activation.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/checksum.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/exact_sum.h"
#include "kernels/ops/gelu.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/layernorm.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/rope.h"

namespace ptrain::cpu {

void swiglu_forward(Context& context, Tensor gate_up, Tensor y);
void swiglu_backward(Context& context, Tensor gate_up, Tensor dy, Tensor dgate_up, Tensor y);

void gradient_scale(Context& context, Tensor sums, double clip, double loss_scale, Tensor scale);
void adamw(Context& context, const AdamWStep& step, Tensor scale, Tensor weight, Tensor master,
           Tensor gradient, Tensor m, Tensor v);
void join_master(Context& context, Tensor weight, Tensor low, Tensor wide);
void split_master(Context& context, Tensor wide, Tensor weight, Tensor low);

void attention_forward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                       Tensor document_start, Tensor out, Tensor lse);
void attention_backward(Context& context, const AttentionDims& dims, Tensor q, Tensor k, Tensor v,
                        Tensor document_start, Tensor out, Tensor lse, Tensor dout, Tensor delta, Tensor dq,
                        Tensor dk, Tensor dv);
void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out);

void fill(Context& context, Tensor x, double value);
void copy(Context& context, Tensor x, Tensor y);
void add(Context& context, Tensor x, Tensor y);
void scale(Context& context, Tensor x, double factor);
void add_bias(Context& context, Tensor y, Tensor bias);
void gather_rows(Context& context, Tensor x, Tensor index, Tensor y);
void scatter_rows(Context& context, Tensor x, Tensor index, Tensor y);
void sum_of_squares(Context& context, Tensor x, Tensor sum);

void embedding_forward(Context& context, Tensor ids, Tensor table, int64_t first_id, Tensor y);
void embedding_backward(Context& context, Tensor ids, Tensor dy, int64_t first_id, Tensor dtable);

void checksum(Context& context, Tensor x, Tensor sum, uint64_t factor);

void exact_sum_of_squares(Context& context, Tensor x, Tensor bins, Write write);
void exact_total(Context& context, Tensor bins, Tensor total);

void gelu_forward(Context& context, Tensor x, Tensor y, Gelu kind);
void gelu_backward(Context& context, Tensor x, Tensor dy, Tensor dx, Gelu kind);

void layernorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor b, Tensor sum, Tensor y,
                       Tensor mean, Tensor rstd, double eps);
void layernorm_backward(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                        Tensor dresidual, Tensor dx, Tensor dw, Tensor db);

void linear_forward(Context& context, Tensor x, Tensor w, Tensor bias, Tensor y, Write write);
void linear_backward_input(Context& context, Tensor dy, Tensor w, Tensor dx, Write write);
void linear_backward_weight(Context& context, Tensor dy, Tensor x, Tensor dw, Write write);
void linear_backward_bias(Context& context, Tensor dy, Tensor db, Write write);

void loss_statistics(Context& context, Tensor logits, Tensor targets, int64_t first_id, Tensor statistics);
void loss_combine(Context& context, Tensor parts, Tensor statistics);
void loss_sum(Context& context, Tensor statistics, Tensor sum);
void loss_backward(Context& context, Tensor logits, Tensor statistics, Tensor targets, int64_t first_id,
                   double scale);

void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps);
void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw);

void update_amax(Context& context, Tensor x, Tensor amax);
void scale_of_amax(Context& context, Tensor amax, DType dtype, int margin, Tensor scale);
void quantize(Context& context, Tensor x, Tensor scale, Tensor y, Tensor y_t);
void linear_quantized(Context& context, Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, Tensor y,
                      Write write);

void rope(Context& context, Tensor x, Tensor positions, Tensor cos_sin, int64_t D, Rotation rotation);

}  // namespace ptrain::cpu
