"""What a training step and a decoded token must compute and move, from shapes alone, and the time that data sheets allow
for it. Prints the tables of benchmarks/gpu.md; nothing here is measured. Standard library alone.

  python3 benchmarks/gpu/paper.py            all tables as Markdown
"""
import json
import os
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(frozen=True)
class Device:
    """One GPU by its maker's data sheet: dense rates without sparsity, bytes a second of memory and of PCIe one way."""
    name: str
    bf16_flops: float
    fp8_flops: float
    bytes_per_s: float
    memory_bytes: float
    pcie_bytes_per_s: float


DEVICES = {
    "H200": Device("H200 SXM", 989e12, 1979e12, 4.8e12, 141e9, 64e9),
    "H100": Device("H100 SXM", 989e12, 1979e12, 3.35e12, 80e9, 64e9),
}
# Seen in practice on an H200: products of large matrices, and a plain copy (reads and writes counted).
PRACTICE_FLOPS = 790e12
PRACTICE_COPY = 4.3e12


@dataclass(frozen=True)
class Model:
    """The sizes of a Llama, with the letters of the op headers."""
    name: str
    C: int
    L: int
    H: int
    K: int
    D: int
    F: int
    V: int
    is_tied: bool

    @property
    def block_parameters(self):
        return self.C * (self.H + 2 * self.K) * self.D + self.H * self.D * self.C + 3 * self.C * self.F

    @property
    def matmul_parameters(self):
        return self.L * self.block_parameters + self.V * self.C

    @property
    def parameters(self):
        norms = (2 * self.L + 1) * self.C
        return self.matmul_parameters + norms + (0 if self.is_tied else self.V * self.C)

    def flops_per_token(self, T):
        """Forward and backward: 6 a matmul parameter, and causal attention. Nothing is counted twice for recomputing."""
        return 6 * self.matmul_parameters + 6 * self.L * T * self.H * self.D

    def decode_bytes(self, position, bytes_per_number=2):
        """Read for one token at batch 1 behind `position` cached ones: every matrix once, keys and values."""
        return bytes_per_number * (self.matmul_parameters + 2 * self.L * self.K * self.D * position)


def read_model(directory):
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    H = config["num_attention_heads"]
    return Model(os.path.basename(os.path.normpath(directory)), config["hidden_size"], config["num_hidden_layers"], H,
                 config.get("num_key_value_heads") or H, config.get("head_dim") or config["hidden_size"] // H,
                 config["intermediate_size"], config["vocab_size"], config.get("tie_word_embeddings", False))


def models():
    return {name: read_model(os.path.join(ROOT, "configs", "models", name))
            for name in ("llama-7b", "tinyllama-1.1b", "smollm2-135m")}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


# name, tokens of a row, goal in tokens/s
STEP_GOALS = (("llama-7b", 2048, 15700), ("tinyllama-1.1b", 2048, 70000), ("smollm2-135m", 2048, 330000))


def step_table():
    rows = []
    for name, T, goal in STEP_GOALS:
        model = models()[name]
        flops = model.flops_per_token(T)
        rows.append([name, f"{model.parameters / 1e6:.0f} M", f"{flops / 1e9:.2f} GFLOP", f"{989e12 / flops:,.0f}",
                     f"{PRACTICE_FLOPS / flops:,.0f}", f"{goal:,}", f"{100 * goal * flops / 989e12:.0f} %"])
    return table(["model, T=2048", "parameters", "a token", "tokens/s at 989 TFLOP/s", "at 790", "goal", "MFU of the goal"],
                 rows)


def gemms(model, N):
    """The products of a step on N tokens: name, rows, inputs, outputs, calls a step (of each of the three products)."""
    return [("qkv", N, model.C, (model.H + 2 * model.K) * model.D, model.L), ("attention out", N, model.H * model.D, model.C, model.L),
            ("gate and up", N, model.C, 2 * model.F, model.L), ("down", N, model.F, model.C, model.L),
            ("head", N, model.C, model.V, 1)]


def gemm_table(name="llama-7b", N=8192):
    rows = []
    for gemm, R, I, O, calls in gemms(models()[name], N):
        flops, moved = 2 * R * I * O, 2 * (R * I + I * O + R * O)
        bound = max(flops / 989e12, moved / DEVICES["H200"].bytes_per_s)
        rows.append([gemm, f"{R} × {I} × {O}", f"{flops / 1e12:.2f} TFLOP", f"{moved / 1e6:.0f} MB", f"{flops / moved:.0f}",
                     f"{1e6 * bound:.0f} µs", f"{1e6 * flops / PRACTICE_FLOPS:.0f} µs", f"{3 * calls}"])
    return table([f"{name}, {N} tokens", "rows × inputs × outputs", "arithmetic", "bytes", "FLOP a byte", "bound, data sheet",
                  "at 790 TFLOP/s", "calls a step"], rows)


def row_ops(model, N):
    """Kernels bound by memory, bf16: name, numbers of bytes read and written in one call, calls a step."""
    rows, wide, heads = N * model.C, N * model.F, N * (model.H + model.K) * model.D
    P, V = model.parameters, model.V
    return [("rmsnorm with residual (x, delta → sum, y)", 2 * 4 * rows + 4 * N, 2 * model.L),
            ("rmsnorm backward (x, dy, residual's → dx)", 2 * 4 * rows + 4 * N, 2 * model.L),
            ("rope on q and k, in place", 2 * 2 * heads, 2 * model.L),
            ("swiglu (gate, up → act)", 2 * 3 * wide, model.L),
            ("swiglu backward (gate, up, d → dgate, dup, act)", 2 * 6 * wide, model.L),
            ("loss, statistics (logits read)", 2 * N * V, 1),
            ("loss, gradient over the logits (read, written)", 2 * 2 * N * V, 1),
            ("embedding (rows read and written)", 2 * 2 * rows, 1),
            ("norm of gradients (f32 read)", 4 * P, 1),
            ("AdamW (weight 2+2, low bits 2+2, gradient 4, moments 8+8)", 28 * P, 1)]


def ops_table(name="llama-7b", N=8192):
    rows = []
    for op, moved, calls in row_ops(models()[name], N):
        rows.append([op, f"{moved / 1e6:,.0f} MB", f"{1e6 * moved / 4.8e12:,.0f} µs", f"{1e6 * moved / PRACTICE_COPY:,.0f} µs",
                     f"{1e6 * moved / (0.9 * PRACTICE_COPY):,.0f} µs", calls, f"{1e3 * calls * moved / PRACTICE_COPY:.1f} ms"])
    total = sum(calls * moved for _, moved, calls in row_ops(models()[name], N)) / PRACTICE_COPY
    rows.append(["all", "", "", "", "", "", f"{1e3 * total:.0f} ms"])
    return table([f"{name}, {N} tokens", "bytes", "at 4.8 TB/s (data sheet)", "at 4.3 TB/s (copy)", "the goal: 90 % of copy",
                  "calls a step", "in a step, at copy speed"], rows)


def decode_table():
    rows = []
    for name in ("llama-7b", "tinyllama-1.1b", "smollm2-135m"):
        moved = models()[name].decode_bytes(288)
        goal = 3.5e-3 if name == "llama-7b" else None
        rows.append([name, f"{moved / 1e9:.2f} GB"] + [f"{1e3 * moved / device.bytes_per_s:.2f} ms" for device in DEVICES.values()]
                    + [f"{1e3 * moved / PRACTICE_COPY:.2f} ms", f"{1e3 * goal:.1f} ms" if goal else "–",
                       f"{moved / goal / 1e12:.2f} TB/s" if goal else "–"])
    return table(["decode, batch 1, bf16, 288 tokens cached", "read a token"]
                 + [f"{device.name} {device.bytes_per_s / 1e12:g} TB/s" for device in DEVICES.values()]
                 + ["at 4.3 TB/s", "goal", "reading at the goal"], rows)


def fp8_table(name="llama-7b", T=4096):
    model = models()[name]
    linear, head, attention = 6 * model.L * model.block_parameters, 6 * model.V * model.C, 6 * model.L * T * model.H * model.D
    times = [("bf16", linear / 989e12, (head + attention) / 989e12), ("fp8", linear / 1979e12, (head + attention) / 989e12)]
    whole = [a + b for _, a, b in times]
    return table([f"{name}, T={T}, a token at the data sheet's rates", "blocks' products", "head and attention (bf16)", "sum",
                  "against bf16"],
                 [[kind, f"{1e9 * a:.1f} ns", f"{1e9 * b:.1f} ns", f"{1e9 * (a + b):.1f} ns", f"{whole[0] / (a + b):.2f}×"]
                  for kind, a, b in times])


def memory_table(name="llama-7b"):
    P = models()[name].parameters
    kinds = [("ptrain, master = bf16 + 16 low bits", 2, 2, 4, 8), ("ptrain, bf16 gradients", 2, 2, 2, 8),
             ("PyTorch, f32 weights under autocast (bf16 copies cached)", 4, 2, 4, 8), ("PyTorch, everything bf16 (other arithmetic)", 2, 0, 2, 4)]
    rows = [[kind, weights, rest, gradient, moments, f"{P * (weights + rest + gradient + moments) / 2**30:.0f} GiB"]
            for kind, weights, rest, gradient, moments in kinds]
    return table([f"{name}, bytes a parameter", "weights", "low bits or copies", "gradient", "moments", "all"], rows)


def transfer_table():
    rows = []
    for name in ("smollm2-135m", "tinyllama-1.1b", "llama-7b"):
        P = models()[name].parameters
        rows.append([name, f"{2 * P / 1e9:.2f} GB", f"{1e3 * 2 * P / 64e9:.0f} ms", f"{12 * P / 1e9:.1f} GB", f"{1e3 * 12 * P / 64e9:,.0f} ms",
                     f"{12 * P / 64e9 * PRACTICE_FLOPS / models()[name].flops_per_token(2048):,.0f}"])
    return table(["over PCIe 5 ×16, 64 GB/s one way (data sheet)", "weights bf16", "in at the start", "state: 12 bytes a parameter",
                  "out for a checkpoint", "tokens computed meanwhile at 790 TFLOP/s"], rows)


SECTIONS = (("Training steps", step_table), ("Products of a step", gemm_table), ("Kernels bound by memory", ops_table),
            ("Decoding", decode_table), ("fp8", fp8_table), ("Memory of the state", memory_table),
            ("Start and checkpoints", transfer_table))


def main():
    print("\n\n".join(f"### {title}\n\n{make()}" for title, make in SECTIONS))


if __name__ == "__main__":
    main()
