"""Turns what `ptxas -v` says, demangled, into a table by kernel. Reads standard input, where lines `file NAME` tell the
source of what follows. Standard library alone.

  ptxas_table.py SPILLS_ALLOWED VERSION <text     prints Markdown; exit code 1 when a kernel spills that is not allowed to
"""
import re
import sys
from dataclasses import dataclass, field


@dataclass
class Usage:
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


@dataclass
class Kernel:
    file: str
    name: str
    usage: dict = field(default_factory=dict)  # by architecture


def short_name(text):
    """A kernel's name with its template arguments, without result, namespaces and parameters."""
    text = text.replace("(anonymous namespace)::", "").replace("__nv_bfloat16", "bf16").replace("__half", "f16")
    text = re.sub(r"\((?:int|bool|long|unsigned int|unsigned long)\)", "", text)  # casts in template arguments
    depth, end = 0, len(text)
    for i, letter in enumerate(text):  # the parameters are the first parenthesis outside of < >
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            end = i
            break
    text = re.sub(r"\b(?:[A-Za-z_]\w*::)+", "", text[:end])
    return re.sub(r"^void ", "", text).strip()


def parse(lines):
    """Kernels in their order."""
    kernels, file, current, arch = {}, "", None, ""
    for line in lines:
        if line.startswith("file "):
            file = line[5:].strip()
        elif found := re.search(r"Compiling entry function '(.*)' for '(sm_\w+)'", line):
            name, arch = short_name(found[1]), found[2]
            kernel = kernels.setdefault((file, name), Kernel(file, name))
            current = kernel.usage.setdefault(arch, Usage())
        elif "Function properties for" in line:
            pass
        elif current is None:
            continue
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            # Functions that were not inlined tell theirs behind their kernel: the largest counts.
            current.stack = max(current.stack, int(found[1]))
            current.spill_stores = max(current.spill_stores, int(found[2]))
            current.spill_loads = max(current.spill_loads, int(found[3]))
        elif found := re.search(r"Used (\d+) registers", line):
            current.registers = int(found[1])
            if smem := re.search(r"(\d+)\+?\d* bytes smem", line):
                current.shared = int(smem[1])
    return list(kernels.values())


def read_allowed(path):
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    allowed = {}
    for line in lines:
        name, _, reason = line.partition(": ")
        if not reason:
            sys.exit(f"{path}: {line}: wants a colon and the reason")
        allowed[name] = reason
    return allowed


def cell(usage):
    if usage is None:
        return "–"
    spill = f", spills {usage.spill_stores} + {usage.spill_loads} bytes" if usage.spill_stores + usage.spill_loads else ""
    stack = f", stack {usage.stack}" if usage.stack else ""
    shared = f", {usage.shared:,} shared" if usage.shared else ""
    return f"{usage.registers}{shared}{stack}{spill}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    allowed, version = read_allowed(sys.argv[1]), sys.argv[2]
    kernels = parse(sys.stdin)
    if not kernels:
        sys.exit("ptxas_table: no kernel in what ptxas said")
    archs = sorted({arch for kernel in kernels for arch in kernel.usage}, key=lambda arch: int(re.sub(r"\D", "", arch)))
    spilling = [kernel for kernel in kernels
                if any(usage.spill_stores + usage.spill_loads for usage in kernel.usage.values())]
    faults = [kernel for kernel in spilling if kernel.name not in allowed]
    print("# Registers, shared memory and spills\n")
    print(f"What the assembler of {version} says of every hand-written kernel, by `bash benchmarks/ptxas.sh`: registers a thread,")
    print("bytes of static shared memory, and stack and spills where there are any. Compiled, not run.\n")
    print(f"{len(kernels)} kernels; {len(spilling)} spill" + (f", {len(faults)} of them without leave." if faults else "."))
    for file in dict.fromkeys(kernel.file for kernel in kernels):
        print(f"\n## {file}\n\n| kernel | {' | '.join(archs)} |\n| --- |{' --- |' * len(archs)}")
        for kernel in kernels:
            if kernel.file == file:
                name = kernel.name.replace("|", "\\|")
                print(f"| `{name}` | {' | '.join(cell(kernel.usage.get(arch)) for arch in archs)} |")
    for kernel in spilling:
        if kernel.name in allowed:
            print(f"\n`{kernel.name}` may spill: {allowed[kernel.name]}")
    for kernel in faults:
        print(f"ptxas: {kernel.file}: {kernel.name} spills: make it smaller, or name it with the reason in {sys.argv[1]}",
              file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
