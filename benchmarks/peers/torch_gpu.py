"""PyTorch on one GPU: transformers' Llama of a config.json with random weights, the work of `ptrain bench step`, `decode`
and `gemm` with --device cuda. Prints one JSON object a line; each line is a whole measurement.

  torch_gpu.py step CONFIG_DIR    training steps: forward, backward, clipping, fused AdamW; eager and compiled
  torch_gpu.py decode CONFIG_DIR  one token after another at batch 1, with a static cache; eager and compiled
  torch_gpu.py machine            products of large matrices for some seconds, and a device copy

It uses the PyTorch of the Python that runs it and installs nothing: without torch, transformers or a GPU it says which is
missing and ends with exit code 4. --device cpu is for trying the script out; such figures say "cpu".
"""
import argparse
import gc
import json
import sys
import time


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("step", "decode", "machine"))
    parser.add_argument("config", nargs="?", help="directory with config.json")
    parser.add_argument("--modes", default="eager,compiled")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4, help="step: where the search for the best batch begins")
    parser.add_argument("--only-batch", action="store_true", help="step: --batch alone, no search")
    parser.add_argument("--batches-from", help="step: batches that an earlier run of this script printed; no search")
    parser.add_argument("--state", choices=("bf16", "fp32"), default="bf16",
                        help="weights, gradients and moments: bf16 is the fastest, fp32 under autocast is what ptrain keeps")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, for each figure")
    parser.add_argument("--search-s", type=float, default=60.0, help="step: no further batch is tried after so long")
    parser.add_argument("--prompt-length", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    arguments.modes = arguments.modes.split(",")
    if set(arguments.modes) - {"eager", "compiled"}:
        parser.error(f"--modes {','.join(arguments.modes)}: there are eager and compiled")
    if (arguments.config is None) != (arguments.work == "machine"):
        parser.error("step and decode take a directory with config.json, machine takes none")
    return arguments


def missing(what):
    print(f"torch_gpu: {what}; PyTorch is left out of the comparison", file=sys.stderr)
    sys.exit(4)


arguments = read_arguments()
try:
    import torch
except ImportError as error:
    missing(f"no PyTorch in {sys.executable} ({error})")
try:
    if arguments.work != "machine":
        import transformers
except ImportError as error:
    missing(f"no transformers in {sys.executable} ({error})")
if arguments.device == "cuda" and not torch.cuda.is_available():
    missing(f"PyTorch {torch.__version__} sees no GPU")
device = torch.device(arguments.device)
is_gpu = device.type == "cuda"
OutOfMemory = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
versions = {"version": torch.__version__, "device": torch.cuda.get_device_name() if is_gpu else "cpu"}
if arguments.work != "machine":
    versions["transformers"] = transformers.__version__


def say(**fields):
    print(json.dumps({"work": arguments.work, **fields, **versions}), flush=True)


def wait():
    if is_gpu:
        torch.cuda.synchronize()


def seconds_of(work, at_least_s, calls=1):
    """Seconds of one `work`, from groups of `calls` between two waits: median and best. At least three groups."""
    groups, begin = [], time.perf_counter()
    while len(groups) < 3 or time.perf_counter() - begin < at_least_s:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        groups.append((time.perf_counter() - start) / calls)
    groups.sort()
    return {"median_s": groups[len(groups) // 2], "best_s": groups[0]}


def forget():
    gc.collect()
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def make_model(dtype):
    config = transformers.AutoConfig.from_pretrained(arguments.config)
    torch.manual_seed(1)
    with device:
        try:
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
        except TypeError:  # transformers 4 has another name for it
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", torch_dtype=dtype)
    return model.to(device)


def flops_per_token(config, T):
    """6 a matmul parameter and 6 L T H D of causal attention: the convention of all figures here."""
    C, L, F, V = config.hidden_size, config.num_hidden_layers, config.intermediate_size, config.vocab_size
    H, K = config.num_attention_heads, config.num_key_value_heads
    D = getattr(config, "head_dim", None) or C // H
    return 6 * (L * (C * (H + 2 * K) * D + H * D * C + 3 * C * F) + V * C) + 6 * L * T * H * D


class Training:
    """One model, its optimizer, and what is compiled of it."""

    def __init__(self):
        self.model = make_model(torch.float32 if arguments.state == "fp32" else torch.bfloat16)
        self.model.train()
        self.model.config.use_cache = False
        decaying = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            lr=1e-7, betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.forward = {"eager": self.model}

    def step(self, mode, ids):
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.state == "fp32"):
            loss = self.forward[mode](input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def measure(self, mode, batch, seconds):
        """A measurement, or None where the memory does not suffice."""
        T = arguments.sequence_length
        ids = torch.randint(self.model.config.vocab_size, (batch, T), device=device)
        begin = time.perf_counter()
        try:
            if mode == "compiled":
                torch._dynamo.reset()
                self.forward[mode] = torch.compile(self.model, dynamic=False)
            first_loss = self.step(mode, ids).item()
            self.step(mode, ids)
            wait()
            first_s = time.perf_counter() - begin
            times = seconds_of(lambda: self.step(mode, ids), seconds)
        except OutOfMemory:
            self.optimizer.zero_grad(set_to_none=True)
            return None
        finally:
            memory = torch.cuda.max_memory_allocated() if is_gpu else None
            reserved = torch.cuda.max_memory_reserved() if is_gpu else None
            forget()
        rate = batch * T / times["median_s"]
        return {"mode": mode, "batch": batch, "sequence_length": T, "state": arguments.state, **times, "first_s": first_s,
                "tokens_per_s": rate, "flops_per_s": rate * flops_per_token(self.model.config, T),
                "peak_memory_bytes": memory, "reserved_memory_bytes": reserved, "first_loss": first_loss}


def batches_from(path):
    batches = {}
    with open(path) as file:
        for line in file:
            if line.startswith("{"):
                row = json.loads(line)
                if row.get("is_best"):
                    batches[row["mode"]] = row["batch"]
    return batches


def best_of_batches(training, mode, batch):
    """The measurement at the best batch: halved until it fits, then doubled while that pays. None where none fits."""
    begin = time.perf_counter()
    found = training.measure(mode, batch, arguments.seconds)
    may_grow = found is not None
    while found is None and batch > 1:
        batch //= 2
        found = training.measure(mode, batch, arguments.seconds)
    while may_grow and time.perf_counter() - begin < arguments.search_s:
        larger = training.measure(mode, 2 * found["batch"], arguments.seconds)
        if larger is None:
            break
        if larger["tokens_per_s"] < 1.01 * found["tokens_per_s"]:
            say(**larger)
            break
        say(**found)
        found = larger
    return found


def step():
    training = Training()
    known = batches_from(arguments.batches_from) if arguments.batches_from else {}
    start = arguments.batch
    for mode in arguments.modes:
        batch = arguments.batch if arguments.only_batch else known.get(mode)
        if batch:
            found = training.measure(mode, batch, arguments.seconds)
        else:
            found = best_of_batches(training, mode, start)
        if found is None:
            say(mode=mode, batch=batch or 1, state=arguments.state, sequence_length=arguments.sequence_length,
                does_not_fit=True)
            continue
        say(**found, is_best=True)
        start = found["batch"]  # where the search of the next mode begins


def static_cache(model, length):
    try:
        return transformers.StaticCache(config=model.config, max_cache_len=length)
    except TypeError:  # transformers 4 wants to know more
        return transformers.StaticCache(config=model.config, max_batch_size=1, max_cache_len=length, device=device,
                                        dtype=model.dtype)


def decode():
    model = make_model(torch.bfloat16).eval()
    length, count = arguments.prompt_length, arguments.tokens
    prompt = torch.tensor([[(i * 7919 + 17) % model.config.vocab_size for i in range(length)]], device=device)
    for mode in arguments.modes:
        forward = torch.compile(model, mode="reduce-overhead", dynamic=False) if mode == "compiled" else model

        cache = static_cache(model, length + count + 1)  # one a mode: what is captured keeps its addresses

        def tokens(how_many):
            """Seconds a token behind the prompt; the choice of the next stays on the GPU."""
            cache.reset()
            logits = model(input_ids=prompt, past_key_values=cache, use_cache=True,
                           cache_position=torch.arange(length, device=device)).logits
            token = logits[:, -1:].argmax(-1)
            positions = torch.arange(length, length + how_many, device=device)
            wait()
            begin = time.perf_counter()
            for index in range(how_many):
                torch.compiler.cudagraph_mark_step_begin()
                out = forward(input_ids=token, past_key_values=cache, use_cache=True,
                              cache_position=positions[index:index + 1])
                token = out.logits[:, -1:].argmax(-1).clone()
            wait()
            return (time.perf_counter() - begin) / how_many

        with torch.inference_mode():
            tokens(8)
            found = sorted(tokens(count) for _ in range(4))
        say(mode=mode, prompt_length=length, tokens=count, token_median_s=found[2], token_best_s=found[0],
            peak_memory_bytes=torch.cuda.max_memory_allocated() if is_gpu else None)
        forget()


def machine():
    """What the device sustains: a product of two squares for some seconds, when its clocks have settled, and a copy."""
    n = 8192 if is_gpu else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty(n, n, device=device, dtype=torch.bfloat16)
    product = seconds_of(lambda: torch.mm(a, b, out=c), arguments.seconds, calls=20 if is_gpu else 1)
    size = 1 << (31 if is_gpu else 26)
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    copy = seconds_of(lambda: target.copy_(source), 0.5 * arguments.seconds, calls=10 if is_gpu else 1)
    say(gemm_flops=2 * n**3 / product["median_s"], gemm_best_flops=2 * n**3 / product["best_s"], n=n,
        copy_bytes_per_s=2 * size / copy["median_s"])


if __name__ == "__main__":
    {"step": step, "decode": decode, "machine": machine}[arguments.work]()
