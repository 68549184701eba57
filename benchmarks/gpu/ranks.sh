# Several ranks on one GPU against one rank: a small Llama with random weights, the same rows, 12 steps. Curves are compared
# by table.py. Correctness, not speed. Sourced by benchmarks/gpu.sh.

# Sizes that two ranks divide, and none a power of two where it need not be.
write_small_model() {  # directory
  mkdir -p "$1"
  cat >"$1/config.json" <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 384, "intermediate_size": 1000,
 "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 3001,
 "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "hidden_act": "silu", "initializer_range": 0.02,
 "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "mlp_bias": false,
 "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
JSON
  awk 'BEGIN { x = 1
    for (row = 0; row < 64; row++) {
      printf "{\"input_ids\": ["
      for (t = 0; t < 131 + row; t++) { x = (x * 16807) % 2147483647; printf "%s%d", t ? ", " : "", x % 3001 }
      print "]}"
    } }' >"$1/rows.jsonl"
}

train_ranks() {  # name precision ranks tensor pipeline data
  local name=ranks.$1.$2 start=()
  if [ "$3" -gt 1 ]; then
    start=(env NCCL_MULTI_RANK_GPU_ENABLE=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$mpirun" -np "$3"
      --oversubscribe --bind-to none)
  fi
  if [ -z "$dry_run" ]; then rm -rf "$out/ranks/$name"; fi
  step "$name" 40 "${start[@]}" "$ptrain" "$out/ranks/small.yaml" --output "$out/ranks/$name" --precision "$2" \
    --parallel.tensor "$4" --parallel.pipeline "$5" --parallel.data "$6"
  case $last_code in 0 | -1) ;; *) any_test_failed=1 ;; esac
}

run_ranks() {
  begin_part ranks 110
  if [ -z "$dry_run" ]; then
    write_small_model "$out/ranks/small"
    cat >"$out/ranks/small.yaml" <<YAML
output: "$out/ranks/run"
device: cuda
model: {path: "$out/ranks/small", init: random}
parallel: {share_devices: true}
data: {train: ["$out/ranks/small/rows.jsonl"], sequence_length: 192}
batch: {micro: 2, global: 8}
optimizer: {learning_rate: 1.0e-3, warmup_steps: 2}
train: {steps: 12, deterministic: true}
checkpoint: {every: 0}
log: {every: 1, tensorboard: false}
YAML
  fi
  local precision
  for precision in fp32 bf16; do
    train_ranks one "$precision" 1 1 1 1
    train_ranks tensor2 "$precision" 2 2 1 1
    train_ranks pipeline2 "$precision" 2 1 2 1
    train_ranks data2 "$precision" 2 1 1 2
  done
}
