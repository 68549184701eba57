#include "src/train/foreign_keys.h"

#include <algorithm>

namespace ptrain {
namespace {

constexpr std::string_view hf = "HF Trainer", hf_axolotl = "HF Trainer, axolotl", axolotl = "axolotl";
constexpr std::string_view deepspeed = "DeepSpeed", titan = "torchtitan", smp = "SageMaker model parallel v1";
constexpr std::string_view megatron = "Megatron-LM";

constexpr ForeignKey table[] = {
    // Batch.
    {"per_device_train_batch_size", hf, "batch.micro", ""},
    {"per_device_batch_size", hf, "batch.micro", ""},
    {"micro_batch_size", "axolotl, Megatron-LM", "batch.micro", ""},
    {"train_micro_batch_size_per_gpu", deepspeed, "batch.micro", ""},
    {"local_batch_size", titan, "batch.micro",
     "torchtitan's is per data rank and step: micro times the micro-batches"},
    {"gradient_accumulation_steps", "HF Trainer, axolotl, DeepSpeed", "batch.global",
     "micro * data ranks * accumulation steps"},
    {"train_batch_size", "DeepSpeed", "batch.global", ""},
    {"global_batch_size", "torchtitan, Megatron-LM", "batch.global", ""},
    {"microbatches", smp, "batch.global", "micro * data ranks * microbatches"},
    {"auto_find_batch_size", hf, "", "`ptrain plan` says what fits before anything runs"},
    // Parallelism.
    {"tensor_parallel_degree", "torchtitan, SageMaker model parallel v1", "parallel.tensor", ""},
    {"tensor_parallel_size", axolotl, "parallel.tensor", ""},
    {"tensor_model_parallel_size", megatron, "parallel.tensor", ""},
    {"pipeline_parallel_degree", "torchtitan, SageMaker model parallel v1", "parallel.pipeline", ""},
    {"pipeline_model_parallel_size", megatron, "parallel.pipeline", ""},
    {"partitions", smp, "parallel.pipeline", ""},
    {"data_parallel_shard_degree", titan, "parallel.data", "with parallel.zero 3"},
    {"data_parallel_replicate_degree", titan, "parallel.data", "with parallel.zero 1"},
    {"dp_shard_size", axolotl, "parallel.data", "with parallel.zero 3"},
    {"sharded_data_parallel_degree", smp, "parallel.zero", "3; the degree is parallel.data"},
    {"pipeline_parallel_schedule", titan, "parallel.schedule",
     "1F1B: 1f1b; Interleaved1F1B: interleaved; ZBVZeroBubble: "
     "zero_bubble with virtual_stages 2; GPipe: gpipe"},
    {"num_layers_per_virtual_pipeline_stage", megatron, "parallel.virtual_stages",
     "chunks a rank, not layers a chunk"},
    {"zero_optimization", deepspeed, "parallel.zero", "its stage"},
    {"zero_stage", "DeepSpeed, Accelerate", "parallel.zero", ""},
    {"stage", deepspeed, "parallel.zero", ""},
    {"fsdp", hf_axolotl, "parallel.zero", "full_shard: 3; shard_grad_op: 2; no_shard: 0"},
    {"fsdp_config", hf_axolotl, "parallel.zero", "full_shard: 3; shard_grad_op: 2; no_shard: 0"},
    {"deepspeed", hf_axolotl, "parallel.zero", "the stage of that file's zero_optimization"},
    {"offload_optimizer", deepspeed, "parallel.offload", "optimizer"},
    {"cpu_offload", "DeepSpeed, torchtitan", "parallel.offload", "optimizer"},
    {"offload_param", deepspeed, "",
     "weights stay on the GPU; parallel.zero 3 shares them over the data ranks"},
    {"overlap_comm", deepspeed, "", "always on"},
    {"reduce_bucket_size", deepspeed, "", "buckets follow the layers"},
    {"ddp_find_unused_parameters", hf, "", "every weight has a gradient here"},
    {"context_parallel_degree", titan, "", "not built; sequence_parallel cuts rows over the tensor group"},
    {"optimize", smp, "", "`ptrain plan` shows memory and speed of each choice"},
    {"ddp", smp, "parallel.data", "auto: what tensor * pipeline leave of the ranks"},
    // Memory.
    {"gradient_checkpointing", hf_axolotl, "train.recompute", "true: full, or auto for the least that fits"},
    {"activation_checkpointing", "DeepSpeed, SageMaker model parallel v1", "train.recompute", "full"},
    {"activation_checkpoint", titan, "train.recompute", "full or selective"},
    {"recompute_granularity", megatron, "train.recompute", ""},
    // Numbers.
    {"bf16", "HF Trainer, axolotl, DeepSpeed", "precision", "bf16"},
    {"fp16", "HF Trainer, axolotl, DeepSpeed", "precision", "fp16"},
    {"tf32", hf_axolotl, "precision", "fp32 computes in full f32"},
    {"mixed_precision_param", titan, "precision", "bfloat16: bf16"},
    {"loss_scale", "DeepSpeed, HF Trainer", "", "fp16 scales its loss by itself"},
    {"seed", "HF Trainer, axolotl, Megatron-LM", "train.seed", ""},
    {"full_determinism", hf, "train.deterministic", "true"},
    {"max_grad_norm", "HF Trainer, axolotl", "optimizer.clip_grad_norm", ""},
    {"max_norm", titan, "optimizer.clip_grad_norm", ""},
    {"gradient_clipping", deepspeed, "optimizer.clip_grad_norm", ""},
    {"clip_grad", megatron, "optimizer.clip_grad_norm", ""},
    // Optimizer and schedule.
    {"learning_rate", hf_axolotl, "optimizer.learning_rate", ""},
    {"lr", "DeepSpeed, torchtitan, Megatron-LM", "optimizer.learning_rate", ""},
    {"weight_decay", "HF Trainer, axolotl, Megatron-LM", "optimizer.weight_decay", ""},
    {"adam_beta1", "HF Trainer, Megatron-LM", "optimizer.betas", "the first of the two"},
    {"adam_beta2", "HF Trainer, Megatron-LM", "optimizer.betas", "the second of the two"},
    {"adam_epsilon", hf, "optimizer.epsilon", ""},
    {"adam_eps", megatron, "optimizer.epsilon", ""},
    {"optim", hf_axolotl, "", "AdamW with decoupled weight decay, always"},
    {"lr_scheduler_type", hf, "optimizer.schedule", "cosine, linear, constant; warmup_stable_decay: wsd"},
    {"lr_scheduler", axolotl, "optimizer.schedule", ""},
    {"lr_decay_style", megatron, "optimizer.schedule", ""},
    {"warmup_ratio", hf_axolotl, "optimizer.warmup_steps", "ratio * steps"},
    {"lr_warmup_iters", megatron, "optimizer.warmup_steps", ""},
    {"min_lr", megatron, "optimizer.min_ratio", "min_lr / lr"},
    {"min_lr_factor", titan, "optimizer.min_ratio", ""},
    {"cosine_min_lr_ratio", axolotl, "optimizer.min_ratio", ""},
    {"decay_ratio", titan, "optimizer.decay_fraction", ""},
    // Length.
    {"num_train_epochs", hf, "train.epochs", ""},
    {"num_epochs", axolotl, "train.epochs", ""},
    {"max_steps", hf_axolotl, "train.steps", ""},
    {"train_iters", megatron, "train.steps", ""},
    // Model and data.
    {"model_name_or_path", hf, "model.path", "a directory; hub names are not looked up"},
    {"base_model", axolotl, "model.path", "a directory; hub names are not looked up"},
    {"hf_assets_path", titan, "model.path", ""},
    {"datasets", axolotl, "data.train", "files of rows; the kind of row is recognised by its keys"},
    {"dataset_name", hf, "data.train", "files, not hub names"},
    {"train_file", hf, "data.train", ""},
    {"validation_file", hf, "data.validation", ""},
    {"test_datasets", axolotl, "data.validation", ""},
    {"val_set_size", axolotl, "data.validation", "a file of its own; nothing is split off"},
    {"sequence_len", axolotl, "data.sequence_length", ""},
    {"seq_len", titan, "data.sequence_length", ""},
    {"seq_length", megatron, "data.sequence_length", ""},
    {"block_size", hf, "data.sequence_length", ""},
    {"model_max_length", hf, "data.sequence_length", ""},
    {"max_seq_length", hf, "data.sequence_length", ""},
    {"sample_packing", axolotl, "data.packing", "attention stays inside each document"},
    {"pad_to_sequence_len", axolotl, "data.packing", "false pads each row on the right"},
    {"train_on_inputs", axolotl, "data.mask_prompt", "the opposite: false means true"},
    {"dataloader_num_workers", hf, "", "text is tokenized once, ahead, and read from a file"},
    {"chat_template", axolotl, "", "that of the model's tokenizer_config.json"},
    {"tokens", axolotl, "data.special_tokens", "a JSON file that lists them: {\"tokens\": [\"[SEP]\"]}"},
    // Output.
    {"output_dir", hf_axolotl, "output", ""},
    {"dump_folder", titan, "output", ""},
    {"save", megatron, "output", ""},
    {"save_steps", hf_axolotl, "checkpoint.every", ""},
    {"save_interval", megatron, "checkpoint.every", ""},
    {"saves_per_epoch", axolotl, "checkpoint.every", "in steps"},
    {"save_total_limit", hf_axolotl, "checkpoint.keep", ""},
    {"keep_latest_k", titan, "checkpoint.keep", ""},
    {"async_mode", titan, "checkpoint.asynchronous", ""},
    {"resume_from_checkpoint", hf_axolotl, "", "the same command resumes from the newest whole checkpoint"},
    {"load_best_model_at_end", hf, "evaluation.keep_best", "the best model is put into <output>/model"},
    {"eval_steps", hf_axolotl, "evaluation.every", ""},
    {"evals_per_epoch", axolotl, "evaluation.every", "in steps"},
    {"eval_interval", megatron, "evaluation.every", ""},
    {"logging_steps", hf_axolotl, "log.every", ""},
    {"log_freq", titan, "log.every", ""},
    {"log_interval", megatron, "log.every", ""},
    {"steps_per_print", deepspeed, "log.every", ""},
    {"report_to", hf, "log.tensorboard", "true or false; metrics.jsonl is always written"},
    {"enable_tensorboard", titan, "log.tensorboard", ""},
    {"enable_profiling", titan, "log.trace", ""},
    {"wandb_project", axolotl, "",
     "metrics.jsonl and TensorBoard events are written; `ptrain report` draws them"},
    {"ddp_timeout", hf, "train.hang_timeout_s", ""},
    {"distributed_timeout_minutes", megatron, "train.hang_timeout_s", "in seconds"},
    {"flash_attention", axolotl, "", "always; nothing to choose"},
    {"attn_implementation", hf, "", "always fused; nothing to choose"},
    {"torch_compile", hf_axolotl, "", "nothing is compiled while it runs"},
    {"adapter", axolotl, "", "not built: all weights are trained"},
    {"lora_r", axolotl, "", "not built: all weights are trained"},
    {"load_in_8bit", axolotl, "", "not built: all weights are trained"},
    {"load_in_4bit", axolotl, "", "not built: all weights are trained"},
};

bool is_same(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b,
                            [](char x, char y) { return (x == '-' ? '_' : x) == (y == '-' ? '_' : y); });
}

}  // namespace

std::span<const ForeignKey> foreign_keys() {
  return table;
}

const ForeignKey* find_foreign(std::string_view path) {
  const std::string_view name =
      path.substr(path.rfind('.') == std::string_view::npos ? 0 : path.rfind('.') + 1);
  const auto* const it =
      std::ranges::find_if(table, [&](const ForeignKey& key) { return is_same(key.name, name); });
  return it == std::end(table) ? nullptr : it;
}

}  // namespace ptrain
