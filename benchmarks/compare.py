"""What benchmarks/compare.sh runs: the programs in turns, and the table of what they did. Standard library alone."""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")


def read_arguments():
    parser = argparse.ArgumentParser()
    for name in ("model", "build", "venv", "gguf", "out", "text"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="step,decode,tokenizer")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - {"step", "decode", "tokenizer"}
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))}: there are step, decode, tokenizer")
    return arguments


class Runner:
    """Runs programs one after the other and keeps what each said, by name."""

    def __init__(self, arguments):
        self.results = {}
        self.failures = {}
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false",
                            "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = open(os.path.join(arguments.out, "log.txt"), "w")
        self.rows = open(os.path.join(arguments.out, "results.jsonl"), "w")

    def run(self, name, command, read=json.loads):
        """Adds one result to self.results[name]. A program that fails is told once and is not tried again."""
        if name in self.failures:
            return
        print(f"  {name} ...", end="", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=900)
            self.log.write(f"== {name}: {' '.join(command)}\n{done.stdout}{done.stderr}\n")
            self.log.flush()
            if done.returncode != 0:
                raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
            result = read(done.stdout)
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            self.failures[name] = f"{error}"
            print(f" failed: {error}", file=sys.stderr)
            return
        self.results.setdefault(name, []).append(result)
        self.rows.write(json.dumps({"name": name, "time": time.time(), **result}) + "\n")
        self.rows.flush()
        print(f" {time.monotonic() - begin:.0f} s", file=sys.stderr)

    def best(self, name, key, pick):
        """pick(values of all turns), or nothing."""
        values = [result[key] for result in self.results.get(name, [])]
        return pick(values) if values else None


def read_tokenizer(text):
    whole = re.search(r"^whole\s+first\s+([\d.]+) MB/s", text, re.M)  # the first pass of all: no word is cached
    line = re.search(r"^lines\s+first\s+([\d.]+) MB/s, best\s+([\d.]+) MB/s, (\d+) ids", text, re.M)
    if whole is None or line is None:
        raise ValueError("bench_tokenizer printed neither `whole` nor `lines`")
    return {"first_mb_per_s": float(whole[1]), "best_mb_per_s": float(line[2]), "ids": int(line[3])}


def take_turns(runner, arguments):
    ptrain = os.path.join(arguments.build, "ptrain")
    tokenizer = os.path.join(arguments.build, "benchmarks", "bench_tokenizer")
    python = os.path.join(arguments.venv, "bin", "python") if arguments.venv else None
    threads = ["--threads", str(arguments.threads)]
    has_gguf = os.path.exists(arguments.gguf)
    if python and not has_gguf:
        print(f"compare: {arguments.gguf} is missing: llama.cpp is left out", file=sys.stderr)

    def peer(name, program, *words):
        if python:
            runner.run(name, [python, os.path.join(PEERS, program), *words])

    def ours(name, *words):
        runner.run(name, [ptrain, "bench", *words, "--json"])

    def step():
        ours("ptrain step", "step", "--model", arguments.model, "--steps", str(arguments.steps))
        peer("PyTorch step", "train_step.py", arguments.model, "--steps", str(arguments.steps), *threads)

    def decode():
        ours("ptrain decode", "decode", "--model", arguments.model)
        peer("PyTorch decode", "decode.py", arguments.model, *threads)
        if has_gguf:
            peer("llama.cpp decode", "llama_cpp_decode.py", arguments.gguf, os.path.join(arguments.out, "f32.gguf"),
                 *threads)

    def tokenize():
        runner.run("ptrain tokenizer", [tokenizer, arguments.model, arguments.text, "3"], read_tokenizer)
        peer("HF tokenizer", "tokenizer.py", arguments.model, arguments.text, "2")

    works = {"step": step, "decode": decode, "tokenizer": tokenize}
    for turn in range(arguments.rounds):
        print(f"turn {turn + 1} of {arguments.rounds}", file=sys.stderr)
        ours("limits", "gemm")
        for name in arguments.only.split(","):
            works[name]()
    ours("limits", "gemm")


def prefill_flops(model, length):
    """Arithmetic of a prompt: every product of the blocks, causal attention, and the head for the last row."""
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    C, L, F, V = (config[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"))
    H = config["num_attention_heads"]
    K, D = config.get("num_key_value_heads", H), config.get("head_dim") or C // H
    block = C * (H + 2 * K) * D + H * D * C + 3 * C * F
    return 2 * length * L * block + 2 * L * H * D * length * length + 2 * V * C


def text_of(value, unit):
    if value is None:
        return "–"
    return {"s": "{:.2f} s", "GB": "{:.2f} GB", "ms": "{:.1f} ms", "tokens/s": "{:.0f} tokens/s",
            "MB/s": "{:.1f} MB/s"}[unit].format(value)


class Table:
    """A row: a piece of work, our figure, the peers', how often as fast (or small) we are, and what must be reached."""

    def __init__(self):
        self.lines = ["| work | ptrain | PyTorch, HF | llama.cpp | ratio | must reach | goal | share of the limit |",
                      "| --- | --- | --- | --- | --- | --- | --- | --- |"]

    def add(self, work, ours, torch, llama, unit, must, goal, share="", lower_is_better=True, peer_name="PyTorch"):
        def ratio(peer):
            if ours is None or peer is None:
                return None
            return peer / ours if lower_is_better else ours / peer

        ratios = [f"{value:.2f}× {name}" for name, value in ((peer_name, ratio(torch)), ("llama.cpp", ratio(llama)))
                  if value is not None]

        def verdict(limit):
            if limit is None or ours is None:
                return "–"
            is_met = ours <= limit if lower_is_better else ours >= limit
            return f"{text_of(limit, unit)} {'met' if is_met else 'not met'}"
        cells = [work, text_of(ours, unit), text_of(torch, unit), text_of(llama, unit), ", ".join(ratios) or "–",
                 verdict(must), verdict(goal), share or "–"]
        self.lines.append("| " + " | ".join(cells) + " |")


def times(factor, value):
    return None if value is None else factor * value


def add_training(table, runner, fma):
    of = runner.best
    ours, torch = of("ptrain step", "best_s", min), of("PyTorch step", "best_s", min)
    flops = of("ptrain step", "flops", max)
    sgemm = max(of("ptrain step", "sgemm_flops", max) or 0, of("limits", "square_flops", max) or 0)
    share = f"{100 * flops / ours / sgemm:.0f} % of sgemm {sgemm / 1e9:.0f} GFLOP/s (goal 90 %), " \
            f"{100 * flops / ours / fma:.0f} % of the FMA peak" if ours and sgemm and fma else ""
    table.add("training step, best", ours, torch, None, "s", torch, times(1 / 1.15, torch), share)
    medians = [of(name, "median_s", statistics.median) for name in ("ptrain step", "PyTorch step")]
    table.add("training step, median", *medians, None, "s", None, None)
    memory = [times(1e-9, of(name, "peak_memory_bytes", max)) for name in ("ptrain step", "PyTorch step")]
    table.add("peak resident memory of it", *memory, None, "GB", times(0.75, memory[1]), times(0.65, memory[1]))
    starts = [of(name, "start_s", min) for name in ("ptrain step", "PyTorch step")]
    table.add("start of the process to the first step's, files cached", *starts, None, "s", 1.5, 1.0)


def read_rate(runner):
    """The fastest reading that any run saw. On virtual machines it may change twofold from one run to the next, by
    where the host has put the memory."""
    return max(runner.best(name, "read_bytes_per_s", max) or 0 for name in ("limits", "ptrain decode"))


def add_decoding(table, runner, model, fma):
    names = ("ptrain decode", "PyTorch decode", "llama.cpp decode")
    tokens = [times(1e3, runner.best(name, "token_median_s", min)) for name in names]
    read = read_rate(runner)
    needed = runner.best(names[0], "bytes_of_token", max)
    share = f"{100 * needed / (tokens[0] / 1e3) / read:.0f} % of reading at {read / 1e9:.0f} GB/s" \
        if tokens[0] and read else ""
    table.add("decode, batch 1, a token", *tokens, "ms", 25, 14, share)
    rates = [runner.best(name, "prefill_tokens_per_s", max) for name in names]
    length = runner.best(names[0], "prompt_length", max)
    share = f"{100 * prefill_flops(model, length) * rates[0] / length / fma:.0f} % of the FMA peak" \
        if rates[0] and fma else ""
    table.add("prefill of 256 tokens", *rates, "tokens/s", 500, 700, share, lower_is_better=False)


def add_tokenizer(table, runner):
    for which, must, goal in (("first", 7, 23), ("best", None, None)):
        rates = [runner.best(name, which + "_mb_per_s", max) for name in ("ptrain tokenizer", "HF tokenizer")]
        pass_ = "first pass" if which == "first" else "again, words cached"
        table.add(f"tokenizer, one thread, English, {pass_}", *rates, None, "MB/s", must, goal, lower_is_better=False,
                  peer_name="HF tokenizers")
    ids = {name: runner.best(name, "ids", max) for name in ("ptrain tokenizer", "HF tokenizer")}
    if None not in ids.values() and len(set(ids.values())) > 1:
        print(f"compare: the tokenizers do not agree: {ids}", file=sys.stderr)


def main():
    arguments = read_arguments()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"compare: the machine is busy (load {load:.1f}): these figures are for trying out, not for publishing",
              file=sys.stderr)
    runner = Runner(arguments)
    begin = time.monotonic()
    take_turns(runner, arguments)
    fma = runner.best("limits", "fma_flops", max)
    table = Table()
    works = arguments.only.split(",")
    if "step" in works:
        add_training(table, runner, fma)
    if "decode" in works:
        add_decoding(table, runner, arguments.model, fma)
    if "tokenizer" in works:
        add_tokenizer(table, runner)
    versions = {name.split()[0]: result[0]["version"] for name, result in runner.results.items()
                if "version" in result[0]}
    print("\n".join(table.lines))
    print(f"\n{arguments.threads} threads, {arguments.rounds} turns of {arguments.steps} steps in "
          f"{(time.monotonic() - begin) / 60:.0f} minutes, load before {load:.1f}. "
          + (f"FMA peak {fma / 1e9:.0f} GFLOP/s, reading {read_rate(runner) / 1e9:.0f} GB/s. " if fma else "")
          + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for name, reason in runner.failures.items():
        print(f"left out: {name}: {reason}")
    losses = [runner.best(name, "first_loss", max) for name in ("ptrain step", "PyTorch step")]
    if None not in losses:
        print(f"loss of the first step: ptrain {losses[0]:.6f}, PyTorch {losses[1]:.6f}")
    return 1 if any(name.startswith("ptrain") or name == "limits" for name in runner.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
