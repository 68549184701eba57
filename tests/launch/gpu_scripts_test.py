"""The scripts that measure on a GPU, as far as they can be tested without one: the table maker over made-up samples, the plan
of a run, what it does where everything fails, the paper's figures in gpu.md, the reader of ptxas.

  gpu_scripts_test.py SOURCE
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv.pop(1))
GPU = os.path.join(SOURCE, "benchmarks", "gpu")
sys.dont_write_bytecode = True
sys.path.insert(0, GPU)
import kernels_table
import paper
import ptxas_table
import results


def run(*command, **options):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **options.pop("environment", {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


def write_sample(directory, change=lambda files: None):
    with open(os.path.join(SOURCE, "tests", "fixtures", "gpu_sample", "sample.json"), encoding="utf-8") as file:
        files = json.load(file)["files"]
    change(files)
    for name, text in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def table_of(change=lambda files: None):
    with tempfile.TemporaryDirectory() as directory:
        write_sample(directory, change)
        return run(sys.executable, os.path.join(GPU, "table.py"), directory)


def cells(text, *beginning):
    """The rest of the one row of a table that begins with these cells."""
    start = "| " + " | ".join(beginning) + " | "
    rows = [line for line in text.splitlines() if line.startswith(start)]
    assert len(rows) == 1, f"{len(rows)} rows begin with {start}: {rows}\n{text}"
    return rows[0][len(start):].removesuffix(" |").split(" | ")


class Table(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.done = table_of()
        cls.text = cls.done.stdout

    def test_the_sample_says_that_it_is_one(self):
        self.assertIn("SAMPLE, NOT A MEASUREMENT", self.text)
        self.assertIn("ptrain computed on: SAMPLE", self.text)

    def test_a_curve_that_left_one_rank_fails_the_run(self):
        self.assertEqual(self.done.returncode, 3, self.done.stderr)

    def test_goals_are_judged_by_the_better_of_two_turns(self):
        training = "llama-7b, bf16, T=2048, training"
        self.assertEqual(cells(self.text, training, "15,700 tokens/s")[:2], ["17,000 tokens/s at 4 rows", "met"])
        self.assertEqual(cells(self.text, training + ", against eager", "1.5×")[:2], ["1.70×: 10,000 tokens/s at 4 rows", "met"])
        self.assertEqual(cells(self.text, training + ", against compiled", "1.25×")[:2],
                         ["1.21×: 14,000 tokens/s at 4 rows", "not met"])
        self.assertEqual(cells(self.text, "llama-7b, fp8, T=4096, training", "1.35× own bf16")[1], "not met")
        self.assertEqual(cells(self.text, "llama-7b, bf16, T=2048, optimizer in host memory", "fits in 80 GB")[:2],
                         ["50.0 GiB, 3,000 tokens/s at 4 rows", "met"])
        self.assertEqual(cells(self.text, "smollm2-135m, deterministic mode", "at most 3 % slower, bitwise")[:2],
                         ["+1.0 %; two runs equal to the bit", "met"])

    def test_the_share_of_the_limit_counts_the_arithmetic_of_shapes(self):
        flops = 17000 * paper.models()["llama-7b"].flops_per_token(2048)
        self.assertEqual(cells(self.text, "llama-7b, bf16, T=2048, training", "15,700 tokens/s")[2],
                         f"{100 * flops / 989e12:.0f} % of 989 TFLOP/s, {100 * flops / 600e12:.0f} % of the 600 measured")

    def test_memory_is_compared_at_the_same_batch_beside_the_ledger(self):
        goal = "0.75× PyTorch"
        self.assertEqual(cells(self.text, "llama-7b, peak memory at equal batch, f32 state", goal)[:2],
                         ["0.60×: 60.0 GiB at 4 rows; the ledger says 58.0; PyTorch 100.0", "met"])
        self.assertIn("PyTorch does not fit", cells(self.text, "tinyllama-1.1b, peak memory at equal batch, f32 state", goal)[0])

    def test_kernels_are_judged_one_by_one_and_attention_is_not_one_of_them(self):
        self.assertEqual(cells(self.text, "llama-7b", "add"), ["3.81 TB/s", "95 %", "met"])
        self.assertEqual(cells(self.text, "llama-7b", "adamw"), ["2.00 TB/s", "50 %", "not met"])
        self.assertNotIn("| attention |", self.text)

    def test_what_was_not_measured_says_why_and_is_never_met(self):
        missing = [line for line in self.text.splitlines() if "not measured: " in line]
        self.assertEqual(len(missing), 5, missing)
        for line in missing:
            self.assertTrue(line.endswith("| – | – |"), line)
        self.assertIn("stopped after 30 s", cells(self.text, "llama-7b, start to the first step, files cached", "8 s")[0])
        self.assertIn("no transformers",
                      cells(self.text, "tinyllama-1.1b, bf16, T=2048, training, against compiled", "1.35×")[0])

    def test_curves_of_ranks_are_held_to_their_precision(self):
        self.assertEqual(cells(self.text, "tensor2", "fp32")[2], "met")
        self.assertEqual(cells(self.text, "pipeline2", "fp32")[2], "not met")
        self.assertEqual(cells(self.text, "tensor2", "bf16")[2], "met")
        self.assertIn("NCCL 2.28 refuses", cells(self.text, "data2", "fp32")[0])
        self.assertIn("not compared", cells(self.text, "data2", "bf16")[0], "two steps are not three")

    def test_collectives_name_their_memory(self):
        self.assertEqual(cells(self.text, "all-reduce"), ["device", "1,000,000", "1000.0", "1.00"])

    def test_cases_and_sanitizers_are_counted_by_program(self):
        self.assertEqual(cells(self.text, "test_gpu_norm"), ["2 passed, 0 failed, 1 skipped", "0 errors", "2 errors"])
        self.assertEqual(cells(self.text, "test_gpu_rope"), ["1 passed, 1 failed, 1 skipped", "no time was left", "not run"])
        self.assertIn("stopped after 60 s", cells(self.text, "test_gpu_slow")[0])

    def test_a_run_without_any_figure_has_a_row_for_every_goal(self):
        def only_the_machine(files):
            first = files["steps.jsonl"].splitlines(keepends=True)[0]
            files.clear()
            files["steps.jsonl"] = first
        done = table_of(only_the_machine)
        self.assertEqual(done.returncode, 0, done.stderr)
        def goals(text):
            return text.split("## Goals")[1].split("## Kernels")[0].strip().splitlines()[2:]
        self.assertEqual({row.split(" | ")[0].removeprefix("| ").split(",")[0] for row in goals(done.stdout)},
                         {row.split(" | ")[0].removeprefix("| ").split(",")[0] for row in goals(self.text)})
        self.assertGreater(len(goals(done.stdout)), 15)
        for row in goals(done.stdout):
            self.assertRegex(row, r"\| not measured: .* \| – \| – \|$")

    def test_an_empty_directory_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            done = run(sys.executable, os.path.join(GPU, "table.py"), directory)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing was run", done.stderr)


class Paper(unittest.TestCase):
    def test_parameters_are_those_of_the_models(self):
        found = {name: model.parameters for name, model in paper.models().items()}
        self.assertEqual(found, {"llama-7b": 6738415616, "tinyllama-1.1b": 1100048384, "smollm2-135m": 134515008})

    def test_the_goal_of_7b_is_65_percent_of_the_peak(self):
        self.assertAlmostEqual(15700 * paper.models()["llama-7b"].flops_per_token(2048) / 989e12, 0.65, 2)

    def test_gpu_md_holds_what_the_script_prints(self):
        with open(os.path.join(SOURCE, "benchmarks", "gpu.md"), encoding="utf-8") as file:
            text = file.read()
        for title, make in paper.SECTIONS:
            self.assertIn(f"### {title}\n\n{make()}\n", text, "python3 benchmarks/gpu/paper.py has the new tables")


class Script(unittest.TestCase):
    script = os.path.join(SOURCE, "benchmarks", "gpu.sh")

    def fake_machine(self, directory):
        """A GPU that nvidia-smi knows and nothing can use, and a program that always fails."""
        for name, text in (("nvidia-smi", "echo 'no GPU, a test'"), ("ptrain", "echo 'ptrain: there is no device' >&2; exit 4"),
                           ("mpirun", "echo 'ptrain: there is no device for ranks' >&2; exit 4"),
                           ("tests/test_gpu_zero", "echo '[       OK ] A.One (1 ms)'"),
                           ("tests/test_gpu_one", "echo '[  FAILED  ] A.One (1 ms)'; echo 'it is \"broken\"' >&2; exit 1"),
                           ("tests/test_gpu_slow", "sleep 100")):
            path = os.path.join(directory, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\n{text}\n")
            os.chmod(path, 0o755)
        return {"PATH": directory + ":" + os.environ["PATH"]}

    def test_a_dry_run_names_every_part_and_writes_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            done = run("bash", self.script, "--dry-run", os.path.join(directory, "out"))
            self.assertEqual(os.listdir(directory), [])
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in ("ranks.tensor2.fp32", "ranks.pipeline2.bf16", "ptrain.step.llama-7b.b8.r1", "torch.step.llama-7b.r2",
                      "ptrain.decode.llama-7b.r1", "ptrain.ops.llama-7b", "ptrain.collectives"):
            self.assertIn(f"  {words} ", done.stdout)
        order = [done.stdout.index(name) for name in ("ptrain.step.llama-7b.b8.r1", "torch.step.llama-7b.r1",
                                                      "ptrain.step.llama-7b.b8.r2", "torch.step.llama-7b.r2")]
        self.assertEqual(order, sorted(order), "A B A B")

    def test_a_failed_step_does_not_stop_the_next_and_the_table_says_so(self):
        with tempfile.TemporaryDirectory() as directory:
            out = os.path.join(directory, "out")
            done = run("bash", self.script, "--build", directory, "--parts", "tests,ranks", "--minutes", "1", "--python",
                       sys.executable, out, environment=self.fake_machine(directory) | {"GPU_TEST_LIMIT_S": "1"})
            self.assertEqual(done.returncode, 1, done.stderr)
            with open(os.path.join(out, "gpu.md"), encoding="utf-8") as file:
                text = file.read()
        self.assertEqual(cells(text, "test_gpu_zero")[0], "1 passed, 0 failed, 0 skipped")
        self.assertEqual(cells(text, "test_gpu_one")[0], "0 passed, 1 failed, 0 skipped")
        self.assertEqual(cells(text, "test_gpu_slow")[0], "stopped after 1 s")
        self.assertIn("there is no device", cells(text, "data2", "bf16")[0])
        self.assertIn("* ranks.data2.bf16: ptrain: there is no device for ranks", text)
        self.assertIn("* test.test_gpu_one: it is broken", text)

    def test_bad_arguments_and_machines_without_a_gpu_are_refused(self):
        for arguments, code, words in (([], 2, "--dry-run"), (["--parts", "speeed", "out"], 2, "there is no speeed"),
                                       (["--minutes", "many", "out"], 2, "not a whole number"), (["--what", "out"], 2, "--dry-run"),
                                       (["--build", "/nothing", "out"], 4, "is missing")):
            done = run("bash", self.script, *arguments, cwd=tempfile.gettempdir())
            self.assertEqual((done.returncode, words in done.stderr), (code, True), f"{arguments}: {done.stderr}")
        with tempfile.TemporaryDirectory() as directory:
            environment = self.fake_machine(directory)
            with open(os.path.join(directory, "nvidia-smi"), "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\nexit 9\n")
            done = run("bash", self.script, "--build", directory, os.path.join(directory, "out"), environment=environment)
        self.assertEqual(done.returncode, 4)
        self.assertIn("no GPU here", done.stderr)


PTXAS = """file kernels/cuda/a.cu
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'void ptrain::cuda::(anonymous namespace)::norm_kernel<__nv_bfloat16, (int)8>(const T1 *, float)' for 'sm_80'
ptxas info    : Function properties for void ptrain::cuda::(anonymous namespace)::norm_kernel<__nv_bfloat16, (int)8>(const T1 *, float)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 380 bytes cmem[0], 128 bytes smem
file kernels/cuda/a.cu
ptxas info    : Compiling entry function 'void ptrain::cuda::_GLOBAL__N__1_a_cu::norm_kernel<__nv_bfloat16, 8>(const T1 *, float)' for 'sm_90'
    16 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
"""


class Ptxas(unittest.TestCase):
    def test_a_kernel_is_one_row_with_its_architectures(self):
        kernels = ptxas_table.parse(PTXAS.splitlines())
        self.assertEqual([(kernel.file, kernel.name) for kernel in kernels], [("kernels/cuda/a.cu", "norm_kernel<bf16, 8>")])
        usage = kernels[0].usage
        self.assertEqual((usage["sm_80"].registers, usage["sm_80"].shared, usage["sm_80"].spill_stores), (40, 128, 0))
        self.assertEqual((usage["sm_90"].registers, usage["sm_90"].spill_stores, usage["sm_90"].spill_loads), (255, 12, 24))

    def test_spills_fail_unless_they_are_allowed_with_a_reason(self):
        for allowed, code in (("# nothing\n", 1), ("norm_kernel<bf16, 8>: a reason\n", 0), ("norm_kernel<bf16, 8>\n", 1)):
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write(allowed)
                file.flush()
                done = run(sys.executable, os.path.join(GPU, "ptxas_table.py"), file.name, "nvcc 0", input=PTXAS)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn("spills" if code == 1 and "reason" in allowed or allowed.startswith("#") else "", done.stderr)

    def test_no_kernel_at_all_is_an_error(self):
        done = run(sys.executable, os.path.join(GPU, "ptxas_table.py"), os.devnull, "nvcc 0", input="file a.cu\n")
        self.assertEqual(done.returncode, 1)


class Kernels(unittest.TestCase):
    def test_kernels_are_found_by_name_whatever_stands_before_it(self):
        text = """// __global__ void in_a_comment(int)
template <class T> __global__ void first_kernel(T* x) {}
__global__ void __launch_bounds__(Shape<T, 2>::threads(3), 1)
    second_kernel(Call<T> call) {}
__global__ void first_kernel(float* x, int again) {}
__device__ void no_kernel(int) {}"""
        self.assertEqual(kernels_table.kernels_of(text), ["first_kernel", "second_kernel"])

    def test_a_file_is_proven_by_the_tests_that_bear_its_name(self):
        tests = ["tests/kernels/emulated_attention_test.cpp", "tests/kernels/emulated_norm_test.cpp"]
        self.assertEqual(kernels_table.tests_of("kernels/cuda/attention_forward.cu", [], tests), tests[:1])
        self.assertEqual(kernels_table.tests_of("kernels/cuda/normal.cu", [], tests), [])


class Weights(unittest.TestCase):
    def test_made_up_weights_are_a_whole_safetensors_file(self):
        with tempfile.TemporaryDirectory() as directory:
            config = os.path.join(SOURCE, "configs", "models", "demo")
            done = run(sys.executable, os.path.join(GPU, "made_up_weights.py"), config, directory)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(directory, "model.safetensors"), "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
                data = file.read()
        self.assertEqual(len(data), max(entry["data_offsets"][1] for entry in header.values()))
        self.assertEqual(len(data), 2 * paper.read_model(config).parameters)
        begin, end = header["model.norm.weight"]["data_offsets"]
        self.assertEqual(set(zip(data[begin:end:2], data[begin + 1:end:2])), {(0x80, 0x3F)}, "norms are 1")


if __name__ == "__main__":
    unittest.main()
