#!/usr/bin/env python3
"""What a checkpoint that is written while training goes on costs the steps that it falls on.

  python3 benchmarks/checkpoint.py STEPS EVERY TURNS -- mpirun -np 4 build/ptrain configs/demo.yaml --train.steps ...

Starts the command in turns with a save every EVERY steps, with none, and with one that training waits for, and takes the
time between rows of metrics.jsonl, so that everything counts: copy, vote, writing behind the steps. Of a save, "its step"
is the time from its row to the next one; the others are those until the next save. Ratios are of medians over all turns.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile


def rows_of(command, steps, extra):
    output = tempfile.mkdtemp(prefix="ptrain-bench-")
    try:
        flags = ["--output", output, "--train.steps", str(steps), "--log.every", "1", "--log.tensorboard", "false",
                 "--checkpoint.keep", "1", "--evaluation.every", "0", "--data.validation", "[]"] + extra
        done = subprocess.run(command + flags, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command + flags)}\n{done.stderr}")
        with open(f"{output}/metrics.jsonl") as file:
            return [json.loads(line) for line in file]
    finally:
        shutil.rmtree(output)


def times_of(rows, every, skip):
    """(of the steps right behind a save, of all others)"""
    on, off = [], []
    for before, row in zip(rows, rows[1:]):
        if before["step"] < skip:
            continue
        (on if before["step"] % every == 0 else off).append(row["time"] - before["time"])
    return on, off


def main():
    if "--" not in sys.argv or len(sys.argv) < 6:
        sys.exit(__doc__)
    steps, every, turns = (int(word) for word in sys.argv[1:4])
    command = sys.argv[sys.argv.index("--") + 1:]
    ways = {"no save": ["--checkpoint.every", "0"],
            "while training goes on": ["--checkpoint.every", str(every)],
            "at once": ["--checkpoint.every", str(every), "--checkpoint.asynchronous", "false"]}
    on = {way: [] for way in ways}
    off = {way: [] for way in ways}
    stall = {way: [] for way in ways}
    for _ in range(turns):
        for way, extra in ways.items():
            rows = rows_of(command, steps, extra)
            a, b = times_of(rows, every, every)
            on[way] += a
            off[way] += b
            stall[way] += [row["checkpoint_stall_s"] for row in rows if row["step"] % every == 1 and row["step"] > every]
    base = statistics.median(on["no save"] + off["no save"])
    print(f"median step without a save: {base * 1e3:.2f} ms")
    for way in list(ways)[1:]:
        print(f"{way}: its step {statistics.median(on[way]) / base:.3f}, the others {statistics.median(off[way]) / base:.3f}, "
              f"all in the mean {statistics.mean(on[way] + off[way]) / statistics.mean(on['no save'] + off['no save']):.3f}; "
              f"checkpoint_stall_s {statistics.median(stall[way]) * 1e3:.2f} ms")


main()
