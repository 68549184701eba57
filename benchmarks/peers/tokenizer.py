"""Hugging Face tokenizers on one thread, line by line: the work of benchmarks/bench_tokenizer.

tokenizer.py MODEL_DIR TEXT_FILE [ROUNDS]     prints one JSON object
"""
import json
import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from rows import timed

import tokenizers

model_dir, path = sys.argv[1:3]
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
tokenizer = tokenizers.Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
with open(path, encoding="utf-8") as file:
    text = file.read()
lines = text.splitlines(keepends=True)
count = 0


def encode_lines():
    global count
    count = sum(len(tokenizer.encode(line, add_special_tokens=False).ids) for line in lines)


seconds = [timed(encode_lines) for _ in range(rounds)]
megabytes = len(text.encode()) / 1e6
print(json.dumps({
    "first_mb_per_s": megabytes / seconds[0], "best_mb_per_s": megabytes / min(seconds), "ids": count,
    "version": tokenizers.__version__}))
