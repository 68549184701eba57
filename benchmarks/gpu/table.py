"""Makes the tables of OUT/gpu.md from what benchmarks/gpu.sh left in OUT: each goal with what was found, whether it is met
and how near it comes to the limit; then kernels, products, ranks and tests one by one. What has no figure says why.

  python3 benchmarks/gpu/table.py OUT         prints Markdown; exit code 3 when a curve of several ranks is not that of one
"""
import sys

import paper
from results import Results, sanitizer_errors, test_counts

NOTHING = "–"


def share(value, limit):
    return f"{100 * value / limit:.0f} %" if value and limit else NOTHING


def verdict(is_met):
    return NOTHING if is_met is None else "met" if is_met else "not met"


class Goals:
    """The rows of the issue's table."""

    def __init__(self, results):
        self.results = results
        self.rows = []
        torch = "torch.machine"
        self.gemm_flops = max(filter(None, (results.best(torch, "gemm_flops"), results.best("ptrain.gemm", "peak_flops"))),
                              default=None)
        self.copy_bytes = max(filter(None, (results.best(torch, "copy_bytes_per_s"),
                                            results.best(r"ptrain\.ops\..*", "copy_bytes_per_s"))), default=None)

    def add(self, measured, goal, found, is_met, limit=NOTHING):
        self.rows.append([measured, goal, found, verdict(is_met), limit])

    def add_missing(self, measured, goal, pattern):
        self.add(measured, goal, f"not measured: {self.results.why_not(pattern)}", None)

    def steps(self, name, T, goal_rate, factors):
        """Training of one model: against PyTorch, eager and compiled, and against tokens a second."""
        ours = rf"ptrain\.step\.{name}\.b\d+\.r\d"
        rates = [row for row in self.results.rows(ours) if row.get("tokens_per_s")]
        if not rates:
            for mode, factor in factors.items():
                self.add_missing(f"{name}, bf16, T={T}, training", f"{factor}× {mode}", ours)
            self.add_missing(f"{name}, bf16, T={T}, training", f"{goal_rate:,} tokens/s", ours)
            return
        best = max(rates, key=lambda row: row["tokens_per_s"])
        rate = best["tokens_per_s"]
        flops = rate * paper.models()[name].flops_per_token(T)
        limit = f"{share(flops, 989e12)} of 989 TFLOP/s"
        if self.gemm_flops:
            limit += f", {share(flops, self.gemm_flops)} of the {self.gemm_flops / 1e12:.0f} measured"
        rows = best.get("rows", "?")
        what = f"{name}, bf16, T={T}, training"
        self.add(what, f"{goal_rate:,} tokens/s", f"{rate:,.0f} tokens/s at {rows} rows", rate >= goal_rate, limit)
        for mode, factor in factors.items():
            theirs = rf"torch\.step\.{name}\.r\d"
            peers = [row for row in self.results.rows(theirs) if row.get("mode") == mode and row.get("is_best")]
            if not peers:
                self.add(f"{what}, against {mode}", f"{factor}×", f"not measured: {self.results.why_not(theirs)}", None)
                continue
            peer = max(peers, key=lambda row: row["tokens_per_s"])
            ratio = rate / peer["tokens_per_s"]
            self.add(f"{what}, against {mode}", f"{factor}×",
                     f"{ratio:.2f}×: {peer['tokens_per_s']:,.0f} tokens/s at {peer['batch']} rows", ratio >= factor)

    def fp8(self):
        what, goal = "llama-7b, fp8, T=4096, training", "1.35× own bf16"
        rate = {kind: self.results.best(rf"ptrain\.step\.llama-7b-{kind}-4096\..*", "tokens_per_s") for kind in ("bf16", "fp8")}
        if None in rate.values():
            absent = "bf16" if rate["bf16"] is None else "fp8"
            self.add_missing(what, goal, rf"ptrain\.step\.llama-7b-{absent}-4096\..*")
            return
        ratio = rate["fp8"] / rate["bf16"]
        self.add(what, goal, f"{ratio:.2f}×: {rate['fp8']:,.0f} against {rate['bf16']:,.0f} tokens/s", ratio >= 1.35,
                 f"{share(ratio, 1.83)} of the 1.83× that shapes allow")

    def offload(self):
        what, goal = "llama-7b, bf16, T=2048, optimizer in host memory", "fits in 80 GB"
        pattern = r"ptrain\.step\.llama-7b-offload\.b\d+\.r\d"
        row = max((row for row in self.results.rows(pattern) if row.get("tokens_per_s") and row.get("peak_memory_bytes")),
                  key=lambda row: row["tokens_per_s"], default=None)
        if row is None:
            self.add_missing(what, goal, pattern)
            return
        found = f"{row['peak_memory_bytes'] / 2**30:.1f} GiB, {row['tokens_per_s']:,.0f} tokens/s at {row.get('rows')} rows"
        self.add(what, goal, found, row["peak_memory_bytes"] <= 80e9)

    def memory(self, name):
        what, goal = f"{name}, peak memory at equal batch, f32 state", "0.75× PyTorch"
        ours = [row for row in self.results.rows(rf"ptrain\.step\.{name}\.b\d+\.r\d") if row.get("peak_memory_bytes")]
        if not ours:
            self.add_missing(what, goal, rf"ptrain\.step\.{name}\.b\d+\.r\d")
            return
        row = max(ours, key=lambda row: row["tokens_per_s"])
        ledger = f"; the ledger says {row['ledger_bytes'] / 2**30:.1f}" if row.get("ledger_bytes") else ""
        found = f"{row['peak_memory_bytes'] / 2**30:.1f} GiB at {row.get('rows')} rows{ledger}"
        peers = self.results.rows(f"torch\\.memory\\.{name}")
        same = [peer for peer in peers if peer.get("batch") == row.get("rows")]
        if any(peer.get("does_not_fit") for peer in same):
            self.add(what, goal, f"{found}; PyTorch does not fit at this batch", True)
        elif any(peer.get("peak_memory_bytes") for peer in same):
            theirs = same[-1]["peak_memory_bytes"]
            ratio = row["peak_memory_bytes"] / theirs
            self.add(what, goal, f"{ratio:.2f}×: {found}; PyTorch {theirs / 2**30:.1f}", ratio <= 0.75)
        else:
            self.add(what, goal, f"{found}; PyTorch not measured: {self.results.why_not(f'torch.memory.{name}')}", None)

    def large_micro_batch(self):
        what, goal = "llama-7b, f32 state, no full recompute", "8k tokens a micro-batch"
        pattern = r"ptrain\.step\.llama-7b\.b\d+\.r\d"
        tokens = [row["rows"] * row["sequence_length"] for row in self.results.rows(pattern)
                  if row.get("rows") and row.get("sequence_length")]
        if tokens:
            self.add(what, goal, f"{max(tokens):,} tokens", max(tokens) >= 8192)
        else:
            self.add_missing(what, goal, pattern)

    def kernels(self, name):
        what, goal = f"element-wise, norm, loss and AdamW kernels, {name}'s sizes", "90 % of copy"
        pattern = f"ptrain\\.ops\\.{name}"
        rates = kernel_rates(self.results, pattern)
        if not rates or not self.copy_bytes:
            self.add_missing(what, goal, pattern)
            return
        good = sum(rate >= 0.9 * self.copy_bytes for _, rate in rates)
        slowest = min(rates, key=lambda pair: pair[1])
        self.add(what, goal, f"{good} of {len(rates)}; lowest {slowest[0]}", good == len(rates),
                 f"{share(slowest[1], self.copy_bytes)} of {self.copy_bytes / 1e12:.2f} TB/s")

    def decode(self):
        what, goal, pattern = "llama-7b, decode, batch 1", "3.5 ms a token", r"ptrain\.decode\.llama-7b\.r\d"
        found = self.results.best(pattern, "token_median_s", min)
        if found is None:
            self.add_missing(what, goal, pattern)
            return
        moved = paper.models()["llama-7b"].decode_bytes(288)
        peers = [f"{mode} {1e3 * value:.2f}" for mode in ("eager", "compiled")
                 if (value := self.results.best(r"torch\.decode\.llama-7b\.r\d", "token_median_s", min,
                                                lambda row, mode=mode: row.get("mode") == mode)) is not None]
        text = f"{1e3 * found:.2f} ms" + (f"; PyTorch {', '.join(peers)}" if peers else "")
        limit = f"{share(moved / found, self.copy_bytes)} of {self.copy_bytes / 1e12:.2f} TB/s" if self.copy_bytes else NOTHING
        self.add(what, goal, text, found <= 3.5e-3, limit)

    def start(self, name, goal_s):
        what, goal, pattern = f"{name}, start to the first step, files cached", f"{goal_s} s", f"start\\.{name}"
        found = self.results.best(pattern, "start_s", min)
        if found is None:
            self.add_missing(what, goal, pattern)
        else:
            self.add(what, goal, f"{found:.2f} s", found <= goal_s)

    def checkpoint(self):
        what, goal, pattern = "asynchronous checkpoint of 1.1B to disk, what a step loses", "50 ms", "checkpoint\\.tinyllama-1.1b"
        stalls = [row["checkpoint_stall_s"] for row in self.results.metrics("checkpoint/run")
                  if row.get("checkpoint_stall_s") is not None]
        if not stalls or max(stalls) == 0:
            self.add_missing(what, goal, pattern)
        else:
            self.add(what, goal, f"{1e3 * max(stalls):.0f} ms at most", max(stalls) <= 0.05)

    def deterministic(self):
        what, goal = "smollm2-135m, deterministic mode", "at most 3 % slower, bitwise"
        pattern = r"ptrain\.step\.smollm2-135m-deterministic\.b\d+\.r\d"
        runs = [row for row in self.results.rows(pattern) if row.get("tokens_per_s")]
        free = self.results.best(r"ptrain\.step\.smollm2-135m\.b\d+\.r\d", "tokens_per_s")
        if not runs or free is None:
            self.add_missing(what, goal, pattern)
            return
        slower = free / max(row["tokens_per_s"] for row in runs) - 1
        losses = {(row.get("rows"), row.get("last_loss")) for row in runs}
        is_bitwise = len(losses) == 1 if len(runs) > 1 and None not in {loss for _, loss in losses} else None
        words = {True: "two runs equal to the bit", False: "two runs differ", None: "only one run"}[is_bitwise]
        self.add(what, goal, f"{100 * slower:+.1f} %; {words}", None if is_bitwise is None else is_bitwise and slower <= 0.03)

    def all(self):
        name, T, rate = paper.STEP_GOALS[0]
        self.steps(name, T, rate, {"eager": 1.5, "compiled": 1.25})
        self.steps(*paper.STEP_GOALS[1], {"compiled": 1.35})
        self.steps(*paper.STEP_GOALS[2], {"compiled": 1.6})
        self.fp8()
        self.offload()
        for model in ("llama-7b", "tinyllama-1.1b"):
            self.memory(model)
        self.large_micro_batch()
        for model in ("llama-7b", "smollm2-135m"):
            self.kernels(model)
        self.decode()
        self.start("smollm2-135m", 2)
        self.start("llama-7b", 8)
        self.checkpoint()
        self.add("asynchronous checkpoint of 7B into a discarding sink", "50 ms", "not measured: there is no such sink", None)
        self.deterministic()
        return paper.table(["measured", "goal", "found", "met", "share of the limit"], self.rows)


def kernel_rates(results, pattern):
    """(name, bytes a second) of each kernel that is bound by memory, its best turn."""
    rates = {}
    for row in results.rows(pattern):
        for op in row.get("ops", []):
            if op.get("bytes") and op.get("seconds") and "attention" not in op["name"]:
                rates[op["name"]] = max(rates.get(op["name"], 0), op["bytes"] / op["seconds"])
    return sorted(rates.items())


def kernels_table(results, copy):
    rows = []
    for name in ("llama-7b", "smollm2-135m"):
        for op, rate in kernel_rates(results, f"ptrain\\.ops\\.{name}"):
            rows.append([name, op, f"{rate / 1e12:.2f} TB/s", share(rate, copy), verdict(rate >= 0.9 * copy if copy else None)])
    return paper.table(["sizes of", "kernel", "bytes a second", "of the measured copy", "90 %"], rows) if rows else None


def products_table(results, peak):
    rows = []
    for row in results.rows("ptrain.gemm"):
        for shape in row.get("shapes", []):
            flops = 2 * shape["rows"] * shape["inputs"] * shape["outputs"]
            cells = [f"{flops / shape[key] / 1e12:.0f} ({share(flops / shape[key], peak)})" if shape.get(key) else NOTHING
                     for key in ("forward_s", "input_gradient_s", "weight_gradient_s")]
            rows.append([shape["name"], f"{shape['rows']} × {shape['inputs']} × {shape['outputs']}", *cells])
    return paper.table(["product", "rows × inputs × outputs", "forward, TFLOP/s", "input gradient", "weight gradient"],
                       rows) if rows else None


def collectives_table(results):
    rows = [[call["name"], call.get("memory", NOTHING), f"{call['bytes']:,}", f"{1e6 * call['median_s']:.1f}",
             f"{call['bytes'] / call['median_s'] / 1e9:.2f}"]
            for row in results.rows("ptrain.collectives") for call in row.get("calls", [])]
    head = ["two ranks on one GPU: not a network's speed", "memory", "bytes", "median µs", "GB/s"]
    return paper.table(head, rows) if rows else None


# Largest relative difference of a loss to that of one rank: fp32 as everywhere in the tests; bf16 rounds each sum elsewhere.
CURVE_LIMITS = {"fp32": 5e-6, "bf16": 1e-2}


def curve_difference(one, other):
    """Largest relative difference, or None where the curves are not of the same steps."""
    if not one or [row["step"] for row in one] != [row["step"] for row in other]:
        return None
    return max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in zip(one, other))


def ranks_table(results):
    """The table, and whether a curve left its limit."""
    rows, is_apart = [], False
    for precision, limit in CURVE_LIMITS.items():
        one = [row for row in results.metrics(f"ranks/ranks.one.{precision}") if "loss" in row]
        for name in ("tensor2", "pipeline2", "data2"):
            step = f"ranks.{name}.{precision}"
            other = [row for row in results.metrics(f"ranks/{step}") if "loss" in row]
            found = curve_difference(one, other)
            if found is None:
                base = f"ranks.one.{precision}" if not one else step
                rows.append([name, precision, f"not compared: {results.why_not(base)}", f"{limit:g}", NOTHING])
            else:
                rows.append([name, precision, f"{found:.1e} over {len(one)} steps", f"{limit:g}", verdict(found <= limit)])
                is_apart = is_apart or not found <= limit
    head = ["two ranks on one GPU", "precision", "largest relative difference to one rank", "at most", ""]
    return paper.table(head, rows), is_apart


def tests_table(results):
    rows = []
    for name in results.names(r"test\..*"):
        step, program = results.steps[name], name.removeprefix("test.")
        passed, failed, skipped = test_counts(results.text(name))
        if passed + failed + skipped == 0:
            counts = step["reason"] or f"no case ran, exit code {step['code']}"
        else:
            counts = f"{passed} passed, {failed} failed, {skipped} skipped"
            if step["code"] != 0 and failed == 0:
                counts += f"; ended with code {step['code']}: {step['reason']}"
        checks = []
        for tool in ("memcheck", "racecheck"):
            check = results.steps.get(f"{tool}.{program}")
            if check is None:
                checks.append("not run")
                continue
            errors = sanitizer_errors(results.text(f"{tool}.{program}") + results.text(f"{tool}.{program}", "err"))
            checks.append(check["reason"] if errors is None and check["reason"] else f"{errors} errors" if errors is not None else "?")
        rows.append([program, counts, *checks])
    return paper.table(["GPU test", "cases", "memcheck", "racecheck"], rows) if rows else None


def heading(results):
    gpu = results.text("machine.gpu").strip() or "a GPU that nvidia-smi did not name"
    torch = results.rows(r"torch\..*")
    lines = [f"GPU, driver, memory, highest clock, power limit, MIG: {gpu}"]
    version = results.text("machine.ptrain").split("\n")
    lines.append("; ".join(line for line in version if line.split(" ")[0] in ("ptrain", "git", "cuda", "nccl", "cudnn")))
    devices = {row["device"] for row in results.rows(r"(ptrain|start)\..*") if row.get("device")}
    if devices:
        lines.append(f"ptrain computed on: {', '.join(sorted(devices))}")
    if torch:
        lines.append(f"PyTorch {torch[0].get('version')}, transformers "
                     f"{next((row['transformers'] for row in torch if 'transformers' in row), NOTHING)}")
    else:
        lines.append(f"PyTorch was not measured: {results.why_not(r'torch[.].*')}")
    return "  \n".join(lines)


def failures(results):
    return [f"* {name}: {step['reason'] or 'exit code ' + str(step['code'])} ({step['seconds']} s of {step['limit_s']} s)"
            for name, step in results.steps.items() if step["code"] != 0]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Results(sys.argv[1])
    if not results.steps:
        sys.exit(f"{sys.argv[1]}/steps.jsonl is missing or empty: nothing was run")
    goals = Goals(results)
    goal_table = goals.all()
    ranks, is_apart = ranks_table(results)
    parts = ["# One GPU, measured", heading(results), "## Goals", goal_table]
    for title, text in (("Kernels", kernels_table(results, goals.copy_bytes)),
                        ("Products", products_table(results, goals.gemm_flops)), ("Several ranks on one GPU", ranks),
                        ("Collectives", collectives_table(results)), ("Tests", tests_table(results)),
                        ("What failed or was not run", "\n".join(failures(results)))):
        parts += [f"## {title}", text or "Nothing."]
    print("\n\n".join(parts))
    return 3 if is_apart else 0


if __name__ == "__main__":
    sys.exit(main())
