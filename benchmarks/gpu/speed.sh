# Speed: ptrain and PyTorch in turns on the same GPU in the same minutes, A B A B, so that clocks and temperature meet both.
# Sourced by benchmarks/gpu.sh.

peer=$root/benchmarks/peers/torch_gpu.py

# A training step at the largest batch of the list that fits (exit code 4 says that one does not).
ptrain_step() {  # label limit batches arguments...
  local label=$1 limit=$2 batches=$3 batch
  shift 3
  if [ -s "$out/batch.$label" ]; then batches=$(cat "$out/batch.$label"); fi
  for batch in $batches; do
    step "ptrain.step.$label.b$batch.r$round" "$limit" "$ptrain" bench step --device cuda --model.init random \
      --batch "$batch" --json "$@"
    if [ -n "$dry_run" ]; then
      if [ "$batch" != "$batches" ]; then echo "      (the next of $batches where this one does not fit)"; fi
      return
    fi
    if [ "$last_code" -eq 0 ]; then echo "$batch" >"$out/batch.$label"; fi
    if [ "$last_code" -ne 4 ]; then return; fi
  done
}

# The first turn looks for PyTorch's best batches; the second takes what it found.
torch_step() {  # label limit batch model
  local label=$1 limit=$2 batch=$3 model=$4 found=$out/logs/torch.step.$1.r1.out how
  how=(--batch "$batch" --search-s $((limit / 4)))
  if [ "$round" -gt 1 ]; then how=(--batches-from "$found"); fi
  step "torch.step.$label.r$round" "$limit" "$python" "$peer" step "$model" --seconds 2 "${how[@]}"
}

# Peak memory with the same state (f32 master and moments) at the same batch.
torch_memory() {  # label limit model
  local batch=B
  if [ -z "$dry_run" ]; then
    [ -s "$out/batch.$1" ] || return 0
    batch=$(cat "$out/batch.$1")
  fi
  step "torch.memory.$1" "$2" "$python" "$peer" step "$3" --state fp32 --modes eager --only-batch --batch "$batch" --seconds 0.5
}

# Weights as a file, for starts from files that the system has cached and for decoding.
make_weights() {  # label limit
  local model=$root/configs/models/$1
  step "weights.$1" "$2" "$python" "$root/benchmarks/gpu/made_up_weights.py" "$model" "$out/models/$1"
}

run_model_7b() {
  local model=$root/configs/models/llama-7b T=(--sequence-length 2048)
  ptrain_step llama-7b 45 "8 4 2 1" --model "$model" "${T[@]}" --precision bf16 --steps 6
  torch_step llama-7b 90 4 "$model"
  if [ "$round" -gt 1 ]; then return; fi
  ptrain_step llama-7b-bf16-4096 40 "4 2 1" --model "$model" --sequence-length 4096 --precision bf16 --steps 4
  ptrain_step llama-7b-fp8-4096 40 "4 2 1" --model "$model" --sequence-length 4096 --precision fp8 --steps 4
  # 81 GB of state in pinned host memory, updated by the CPU.
  ptrain_step llama-7b-offload 90 "8 4 2 1" --model "$model" "${T[@]}" --precision bf16 --steps 3 --parallel.offload optimizer
  torch_memory llama-7b 40 "$model"
}

run_model_1_1b() {
  local model=$root/configs/models/tinyllama-1.1b
  ptrain_step tinyllama-1.1b 25 "16 8 4 2" --model "$model" --sequence-length 2048 --precision bf16 --steps 10
  torch_step tinyllama-1.1b 60 8 "$model"
  if [ "$round" -gt 1 ]; then return; fi
  torch_memory tinyllama-1.1b 25 "$model"
}

run_model_135m() {
  local model=$root/configs/models/smollm2-135m
  ptrain_step smollm2-135m 20 "32 16 8 4" --model "$model" --sequence-length 2048 --precision bf16 --steps 20
  ptrain_step smollm2-135m-deterministic 20 "32 16 8 4" --model "$model" --sequence-length 2048 --precision bf16 --steps 20 \
    --train.deterministic true
  torch_step smollm2-135m 50 16 "$model"
}

run_decode() {
  local model=$out/models/llama-7b
  step "ptrain.decode.llama-7b.r$round" 30 "$ptrain" bench decode --device cuda --precision bf16 --model "$model" --json
  step "torch.decode.llama-7b.r$round" 40 "$python" "$peer" decode "$root/configs/models/llama-7b"
}

# From the process's start to the first step's, weights in files that the system has cached.
run_start() {
  local model
  for model in smollm2-135m llama-7b; do
    case $model in smollm2-135m) has_model 135m || continue ;; *) has_model 7b || continue ;; esac
    step "start.$model" 30 "$ptrain" bench step --device cuda --model "$out/models/$model" --batch 1 --sequence-length 2048 \
      --precision bf16 --steps 1 --json
  done
}

# What saving costs the steps around it, from the run's own metrics.
run_checkpoint() {
  local run=$out/checkpoint
  if [ -z "$dry_run" ]; then
    rm -rf "$run"
    mkdir -p "$run"
    awk 'BEGIN { for (r = 0; r < 64; r++) { printf "{\"input_ids\": ["
      for (t = 0; t < 1024; t++) printf "%s%d", t ? ", " : "", (t * 7919 + r * 31) % 32000; print "]}" } }' >"$run/rows.jsonl"
    cat >"$run/run.yaml" <<YAML
output: "$run/run"
device: cuda
precision: bf16
model: {path: "$root/configs/models/tinyllama-1.1b", init: random}
data: {train: ["$run/rows.jsonl"], sequence_length: 1024}
batch: {micro: 4, global: 8}
train: {steps: 24}
checkpoint: {every: 8, keep: 1}
log: {tensorboard: false}
YAML
  fi
  step checkpoint.tinyllama-1.1b 60 "$ptrain" "$run/run.yaml"
}

has_model() { case ,$models, in *,"$1",*) return 0 ;; esac && return 1; }

run_speed() {
  begin_part speed $((deadline - SECONDS))
  local round
  if [ -z "$dry_run" ]; then rm -f "$out"/batch.*; fi
  step ptrain.gemm 25 "$ptrain" bench gemm --device cuda --precision bf16 --batch 4 --sequence-length 2048 \
    --model "$root/configs/models/llama-7b" --json
  step torch.machine 25 "$python" "$peer" machine --seconds 2
  step ptrain.ops.llama-7b 25 "$ptrain" bench ops --device cuda --precision bf16 --batch 4 --sequence-length 2048 \
    --model "$root/configs/models/llama-7b" --json
  if has_model 135m; then make_weights smollm2-135m 10; fi
  if has_model 7b; then make_weights llama-7b 60; fi
  for round in 1 2; do
    if has_model 135m; then run_model_135m; fi
    if has_model 1.1b; then run_model_1_1b; fi
    if has_model 7b; then
      run_model_7b
      run_decode
    fi
    if [ "$round" -eq 1 ]; then run_start; fi
  done
  run_checkpoint
  step ptrain.ops.smollm2-135m 15 "$ptrain" bench ops --device cuda --precision bf16 --batch 16 --sequence-length 2048 \
    --model "$root/configs/models/smollm2-135m" --json
  step ptrain.collectives 25 env NCCL_MULTI_RANK_GPU_ENABLE=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    "$mpirun" -np 2 --oversubscribe --bind-to none "$ptrain" bench collectives --device cuda --parallel.share_devices true --json
}
