"""Lists every hand-written CUDA kernel with the test that runs it as host C++, for benchmarks/gpu.md. Standard library alone.

  kernels_table.py            prints the section "Kernel by kernel"
  kernels_table.py --write    puts it into benchmarks/gpu.md, in the place of the one that is there
"""
import glob
import os
import re
import sys

from paper import ROOT, table

HEADING = "## Kernel by kernel"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def names(pattern):
    return sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, pattern)))


def kernels_of(text):
    """Names of the __global__ functions, in their order."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", text)
    return list(dict.fromkeys(re.findall(r"__global__\s+(?:static\s+)?void\s+(\w+)\s*\(", text)))


def included_by(header, sources):
    return [path for path in sources if f'"{header}"' in read(path)]


def tests_of(path, sources, tests):
    """The emulated tests of a file: named like it, or like its beginning; a header has those of who includes it."""
    if path.endswith(".cuh"):
        found = [test for source in included_by(path, sources) for test in tests_of(source, sources, tests)]
        return sorted(set(found))
    stem = os.path.basename(path).removesuffix(".cu")
    named = {test: os.path.basename(test).removeprefix("emulated_").removesuffix("_test.cpp") for test in tests}
    found = [test for test, of in named.items() if stem == of or stem.startswith(of + "_") or of.startswith(stem + "_")]
    return sorted(found)


def section():
    sources = names("kernels/cuda/*.cu")
    registered = read("tests/kernels/meson.build")
    tests = [test for test in names("tests/kernels/emulated_*_test.cpp")
             if re.search(rf"'{os.path.basename(test).removeprefix('emulated_').removesuffix('_test.cpp')}'", registered)]
    rows = []
    for path in sources + names("kernels/cuda/*.cuh"):
        kernels = kernels_of(read(path))
        if kernels:
            by = ", ".join(os.path.basename(test).removesuffix("_test.cpp") for test in tests_of(path, sources, tests))
            rows.append([os.path.relpath(path, "kernels/cuda"), ", ".join(kernels), by or "no test yet", "never run"])
    count = sum(len(row[1].split(", ")) for row in rows)
    return (f"{HEADING}\n\n{count} kernel templates in {len(rows)} files (`python3 benchmarks/gpu/kernels_table.py --write`). "
            "What cuBLASLt, cuDNN and NCCL do has not run either.\n\n"
            + table(["file", "kernels", "as host C++, against the CPU's twin", "on a GPU"], rows) + "\n")


def main():
    text = section()
    if sys.argv[1:] != ["--write"]:
        print(text, end="")
        return
    path = os.path.join(ROOT, "benchmarks", "gpu.md")
    before = read("benchmarks/gpu.md").split(HEADING)[0].rstrip("\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}\n\n{text}")


if __name__ == "__main__":
    main()
