"""Training steps of transformers' model in PyTorch: the work of `ptrain bench step`, on the same rows.

train_step.py MODEL_DIR [--batch 4] [--sequence-length 256] [--steps 5] [--threads 2]     prints one JSON object
"""
import argparse
import json

from rows import made_up_rows, median_and_best, peak_memory_bytes, process_age_s, timed

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--sequence-length", type=int, default=256)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(arguments.threads)
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
model.train()
model.config.use_cache = False
decaying = [p for p in model.parameters() if p.dim() >= 2]
others = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
    lr=1e-7, betas=(0.9, 0.95), eps=1e-8, fused=True)
rows = made_up_rows(arguments.batch * (arguments.steps + 1), arguments.sequence_length, model.config.vocab_size)
losses = []


def step(index):
    ids = torch.tensor(rows[index * arguments.batch:(index + 1) * arguments.batch])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())


start_s = process_age_s()
first_s = timed(lambda: step(0))
seconds = [timed(lambda: step(index)) for index in range(1, arguments.steps + 1)]
print(json.dumps({
    **median_and_best(seconds), "first_s": first_s, "start_s": start_s, "peak_memory_bytes": peak_memory_bytes(),
    "first_loss": losses[0], "version": torch.__version__}))
