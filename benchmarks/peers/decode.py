"""Prefill and decoding at batch 1 of transformers' model in PyTorch: the work of `ptrain bench decode`.

decode.py MODEL_DIR [--prompt-length 256] [--tokens 64] [--threads 2]     prints one JSON object
"""
import argparse
import json

from rows import made_up_prompt, median_and_best, peak_memory_bytes, timed

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--prompt-length", type=int, default=256)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(arguments.threads)
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
model.eval()
prompt = torch.tensor([made_up_prompt(arguments.prompt_length, model.config.vocab_size)])
cache = None


def prefill():
    global cache
    cache = model(input_ids=prompt, use_cache=True, logits_to_keep=1).past_key_values


def decode(index):
    model(input_ids=prompt[:, index:index + 1], past_key_values=cache, use_cache=True)


with torch.inference_mode():
    prefill()
    prefill_s = [timed(prefill) for _ in range(4)]
    token_s = [timed(lambda: decode(index % arguments.prompt_length)) for index in range(arguments.tokens)]
tokens, filled = median_and_best(token_s), median_and_best(prefill_s)
print(json.dumps({
    "token_median_s": tokens["median_s"], "token_best_s": tokens["best_s"],
    "prefill_tokens_per_s": arguments.prompt_length / filled["median_s"],
    "prefill_best_tokens_per_s": arguments.prompt_length / filled["best_s"],
    "peak_memory_bytes": peak_memory_bytes(), "version": torch.__version__}))
