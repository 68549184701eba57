"""Prefill and decoding at batch 1 in llama.cpp, weights in F32: the work of `ptrain bench decode`.

llama_cpp_decode.py MODEL.gguf F32.gguf [--prompt-length 256] [--tokens 64] [--threads 2]     prints one JSON object
F32.gguf is made of MODEL.gguf if it is not there.
"""
import argparse
import ctypes
import json
import os

from rows import made_up_prompt, median_and_best, peak_memory_bytes, timed

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("model")
parser.add_argument("--prompt-length", type=int, default=256)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

import llama_cpp


def make_f32(source, target):
    rules = llama_cpp.llama_model_quantize_default_params()
    rules.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    rules.allow_requantize = True
    rules.nthread = arguments.threads
    part = target + ".part"
    code = llama_cpp.llama_model_quantize(source.encode(), part.encode(), ctypes.byref(rules))
    if code != 0:
        raise SystemExit(f"llama.cpp could not make {target} of {source}: {code}")
    os.replace(part, target)


if not os.path.exists(arguments.model):
    make_f32(arguments.source, arguments.model)
model = llama_cpp.Llama(
    arguments.model, n_ctx=arguments.prompt_length + arguments.tokens, n_batch=512, n_threads=arguments.threads,
    n_threads_batch=arguments.threads, verbose=False)
prompt = made_up_prompt(arguments.prompt_length, model.n_vocab())


def prefill():
    model.reset()
    model.eval(prompt)


prefill()
prefill_s = [timed(prefill) for _ in range(4)]
token_s = [timed(lambda: model.eval([prompt[index % arguments.prompt_length]])) for index in range(arguments.tokens)]
tokens, filled = median_and_best(token_s), median_and_best(prefill_s)
print(json.dumps({
    "token_median_s": tokens["median_s"], "token_best_s": tokens["best_s"],
    "prefill_tokens_per_s": arguments.prompt_length / filled["median_s"],
    "prefill_best_tokens_per_s": arguments.prompt_length / filled["best_s"],
    "peak_memory_bytes": peak_memory_bytes(), "version": llama_cpp.__version__}))
