#!/usr/bin/env python3
"""The tables of docs/sizes.md: what `ptrain plan` says of typical models on typical machines. Nothing is measured.

  python3 benchmarks/sizes.py build/ptrain docs/sizes.md     writes them between the page's two comments
"""
import re
import subprocess
import sys
import tempfile

# An hour of one instance on demand in US dollars, us-west-2: the page says from where.
PRICES = {"g5.48xlarge": 16.288, "p4d.24xlarge": 21.95764, "p5.48xlarge": 55.04, "p5en.48xlarge": 63.296}
ONE_H100 = 6.88  # p5.4xlarge, us-east-1
TOKENS = 1_000_000_000

MODELS = [
    # title, configuration, model, ranks that the configuration is for
    ("SmolLM2-135M", "configs/llama7b.yaml", "configs/models/smollm2-135m", 16),
    ("TinyLlama-1.1B", "configs/llama7b.yaml", "configs/models/tinyllama-1.1b", 16),
    ("Llama-7B", "configs/llama7b.yaml", "configs/models/llama-7b", 16),
    ("Llama-13B", "configs/llama13b.yaml", "configs/models/llama-13b", 16),
    ("Llama-70B", "configs/llama70b.yaml", "configs/models/llama-70b", 64),
]
ALONE = ["--parallel.tensor", "1", "--parallel.pipeline", "1", "--parallel.data", "auto"]


class Planner:
    def __init__(self, program):
        self.program = program

    def say(self, config, model, words):
        result = subprocess.run([self.program, "plan", config, "--model.path", model] + words, text=True,
                                capture_output=True)
        if result.returncode != 0:
            raise SystemExit(f"{config} {words}: {result.stderr}")
        return result.stdout

    def guide(self, config, model, ranks):
        """Of each instance kind the cheapest line of the buying guide: instances, GPUs, grid."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as prices:
            prices.write("".join(f"{kind}: {price}\n" for kind, price in PRICES.items()))
            prices.flush()
            text = self.say(config, model, ["--ranks", str(ranks), "--prices", prices.name, "--tokens", str(TOKENS)] + ALONE)
        lines = {}
        for match in re.finditer(r"^ +(\d+) x (\S+) +(\d+) x (\S+) +(tensor .*?)  ", text, re.M):
            count, kind, ranks, device, grid = match.groups()
            lines.setdefault(kind, (int(count), int(ranks), device, grid))
        return lines


def keys_of(grid):
    """ "tensor 2 x pipeline 2 x data 4, 1f1b, ZeRO 1, recompute selective": the keys that make it."""
    first, *rest = grid.split(", ")
    words = []
    for axis in first.split(" x "):
        name, size = axis.split()
        words += ["--parallel." + name, size]
    for word in rest:
        if word.startswith("ZeRO"):
            words += ["--parallel.zero", word.split()[1]]
        elif word.startswith("recompute"):
            words += ["--train.recompute", word.split()[1]]
        elif word.startswith("offload"):
            words += ["--parallel.offload", "optimizer"]
        elif re.fullmatch(r"1f1b|gpipe|zero_bubble", word):
            words += ["--parallel.schedule", word]
        else:
            raise SystemExit(f"no key is known for {word!r} of {grid!r}")
    return words


def row(text, machine, grid, price):
    fits = re.search(r"^Fits: the largest rank needs .* = (\S+ \S+) of (\S+ \S+)$", text, re.M)
    step = re.search(r"^  step +(\S+ \S+) ", text, re.M).group(1)
    speed = int(re.search(r"^  speed +([\d,]+) tokens/s", text, re.M).group(1).replace(",", ""))
    if not fits:
        return f"| {machine} | {grid} | does not fit | | | | |"
    hours = TOKENS / speed / 3600
    time = f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.0f} days"
    cost = f"{price * hours:,.0f}" if price else ""
    return f"| {machine} | {grid} | {fits.group(1)} of {fits.group(2)} | {step} | {speed:,} | {time} | {cost} |"


def one_gpu(planner, config, model):
    words = ["--ranks", "1", "--hardware", "h100"] + ALONE
    text, grid = planner.say(config, model, words), "alone"
    if "DOES NOT FIT" in text:
        remedy = re.search(r"^  (--\S+ \S+(?: --\S+ \S+)*)  ", text, re.M)
        if not remedy:
            return "| 1 x H100 | alone | does not fit | | | | |"
        text, grid = planner.say(config, model, words + remedy.group(1).split()), f"`{remedy.group(1)}`"
    return row(text, "1 x H100 (p5.4xlarge)", grid, ONE_H100)


def laptop(planner, config, model):
    words = ["--ranks", "8", "--hardware", "cpu:4", "--device", "cpu", "--precision", "fp32"] + ALONE
    return row(planner.say(config, model, words), "laptop: 8 ranks, 8 cores, 32 GiB", "data 8", None)


def tables(planner):
    text = ""
    for title, config, model, ranks in MODELS:
        text += f"\n### {title}\n\n"
        text += "| machine | grid | memory of a rank | a step | tokens/s | a billion tokens | in dollars |\n"
        text += "| --- | --- | --- | --- | --- | --- | --- |\n"
        for kind, (count, gpus, device, grid) in planner.guide(config, model, ranks).items():
            plan = planner.say(config, model, ["--ranks", str(gpus), "--hardware", device] + keys_of(grid))
            text += row(plan, f"{count} x {kind} ({gpus} x {device})", grid, count * PRICES[kind]) + "\n"
        text += one_gpu(planner, config, model) + "\n"
        text += laptop(planner, config, model) + "\n"
    return text + "\n"


def main():
    program, page = sys.argv[1:]
    begin, end = "<!-- table: sizes -->\n", "<!-- end: sizes -->\n"
    with open(page) as file:
        text = file.read()
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    made = head + begin + tables(Planner(program)) + end + tail
    with open(page, "w") as file:
        file.write(made)


if __name__ == "__main__":
    main()
