"""Training jobs of SageMaker, replayed with what the service would start in its containers, on one and two hosts with
disks of their own: SDK v2's toolkit, SDK v3's drivers, and an image of one's own. Exit codes, the reason of a failure,
what lies where afterwards, and the metrics that the console would show.

  sagemaker_replay_test.py SOURCE BUILD      PTRAIN_SAGEMAKER_VENV: an environment that tests/harness/sagemaker/toolkit.sh made
"""
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.path.abspath(sys.argv.pop(2))
SOURCE = os.path.abspath(sys.argv.pop(1))
HARNESS = os.path.join(SOURCE, "tests", "harness", "sagemaker")
VENV = os.environ.get("PTRAIN_SAGEMAKER_VENV", os.path.join(BUILD, "sagemaker-toolkit"))
sys.dont_write_bytecode = True
METRICS = runpy.run_path(os.path.join(SOURCE, "launch", "sagemaker", "metrics.py"))["METRIC_DEFINITIONS"]
RUN = "algo-1/ml/checkpoints/algo-1/run"
RUN_2 = "algo-2/ml/checkpoints/algo-2/run"
# More ranks than cores, in a container.
QUIET = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
         "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMP_NUM_THREADS": "1"}
STEPS = {"train.steps": 20, "checkpoint.every": 10, "evaluation.every": 10, "log.every": 5}
SHORT = {**STEPS, "parallel.pipeline": 1, "parallel.data": "auto"}


def command(*words, check=True, **options):
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode == 77:
        raise unittest.SkipTest(done.stdout.strip())
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}")
    return done


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def files(directory):
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def setUpModule():
    """The steps of docs/sagemaker.md, in a checkout of what they need."""
    global ROOT, CODE
    ROOT = tempfile.mkdtemp(prefix="ptrain-sagemaker-")
    unittest.addModuleCleanup(shutil.rmtree, ROOT, ignore_errors=True)
    if shutil.which("unshare") is None:
        raise unittest.SkipTest("unshare (util-linux) is missing")
    if command("unshare", "--net", "--mount", "--pid", "--fork", "true", check=False).returncode != 0:
        raise unittest.SkipTest("hosts cannot be made here: no root, or no namespaces")
    checkout = os.path.join(ROOT, "checkout")
    for name in ("launch", "configs"):
        shutil.copytree(os.path.join(SOURCE, name), os.path.join(checkout, name), symlinks=True,
                        ignore=shutil.ignore_patterns("bundle.*.part*"))
    os.symlink(BUILD, os.path.join(checkout, "build"))
    for name in ("train", "validation"):
        os.makedirs(os.path.join(ROOT, name))
    command("bash", os.path.join(SOURCE, "launch", "demo_data.sh"), os.path.join(ROOT, "data"))
    for name in ("train", "validation"):
        shutil.copy(os.path.join(ROOT, "data", name + ".jsonl"), os.path.join(ROOT, name))
    shutil.copytree(os.path.join(SOURCE, "configs", "models", "demo"), os.path.join(ROOT, "model"))
    steps = re.findall(r"```sh\n(.*?)```", read(os.path.join(SOURCE, "docs", "sagemaker.md")), re.DOTALL)
    assert "launch/sagemaker/bundle" in steps[0] and "docker build" in steps[1], steps
    # The first block ends with what needs an account, the second with what needs Docker.
    here = [line for line in steps[0].splitlines() if line.startswith(("bash ", "cp "))]
    command("bash", "-euc", "\n".join(here), cwd=checkout)
    shutil.copytree(os.path.join(checkout, "launch", "sagemaker", "bundle"), os.path.join(checkout, "bundle"), symlinks=True)
    CODE = os.path.join(checkout, "launch", "sagemaker")
    shutil.copy(os.path.join(SOURCE, "configs", "demo.yaml"), os.path.join(CODE, "config.yaml"))


class Replay(unittest.TestCase):
    def start(self, way, hyperparameters, *options, hosts=1, variables=None, expected=0):
        """Replays a job; self.out is its directory."""
        self.out = os.path.join(ROOT, self.id().rsplit(".", 1)[-1] + str(time.monotonic_ns()))
        words = ["bash", os.path.join(HARNESS, "replay.sh"), "--way", way, "--out", self.out, "--hosts", str(hosts),
                 "--venv", VENV, "--code", CODE, "--hyperparameters", json.dumps(hyperparameters)]
        for name in ("train", "validation", "model"):
            words += ["--channel", f"{name}={os.path.join(ROOT, name)}"]
        for name, value in {**QUIET, **(variables or {})}.items():
            words += ["--env", f"{name}={value}"] if value else []
        done = command(*words, *options, check=False, timeout=200)
        self.log = read(self.path("algo-1.log")) if os.path.exists(self.path("algo-1.log")) else ""
        self.assertEqual(done.returncode, expected, done.stdout + self.log[-6000:])
        return done

    def path(self, *names):
        return os.path.join(self.out, *names)

    def failure(self):
        return read(self.path("algo-1", "ml", "output", "failure"))

    def expect_metrics(self, run):
        """What the console would show, number by number that of metrics.jsonl."""
        rows = [json.loads(line) for line in read(self.path(run, "metrics.jsonl")).splitlines()]
        steps = [row for row in rows if "loss" in row and row["step"] % 5 == 0]
        wanted = {"train:loss": [(row["loss"], 1e-4) for row in steps],
                  "train:grad_norm": [(row["grad_norm"], 1e-3) for row in steps],
                  "train:learning_rate": [(row["lr"], 1e-2 * row["lr"]) for row in steps],
                  "train:tokens_per_s": [(row["tokens_per_s"], 1) for row in steps],
                  # Known where `ptrain bench gemm` has measured this machine.
                  "train:mfu_percent": [(100 * row["mfu"], 0.06) for row in steps if row["mfu"] is not None],
                  "validation:loss": [(row["eval_loss"], 1e-4) for row in rows if "eval_loss" in row]}
        self.assertEqual(len(steps), 4)
        self.assertEqual(set(wanted), {definition["Name"] for definition in METRICS})
        for definition in METRICS:
            found = [float(number) for line in self.log.splitlines() for number in re.findall(definition["Regex"], line)]
            self.assertEqual(len(found), len(wanted[definition["Name"]]), definition["Name"])
            for number, (right, tolerance) in zip(found, wanted[definition["Name"]]):
                self.assertAlmostEqual(number, right, delta=tolerance, msg=definition["Name"])

    def expect_model(self, directory, run):
        self.assertEqual(files(self.path(directory)), ["config.json", "model.safetensors", "tokenizer.json",
                                                       "tokenizer_config.json"])
        for name in files(self.path(directory)):
            with open(self.path(directory, name), "rb") as one, open(self.path(run, "model", name), "rb") as other:
                self.assertEqual(one.read(), other.read(), name)


class Toolkit(Replay):
    @classmethod
    def setUpClass(cls):
        command("bash", os.path.join(HARNESS, "toolkit.sh"), VENV)


class SdkV2(Toolkit):
    def test_one_host_trains_and_leaves_what_the_documentation_says(self):
        self.start("v2", {**STEPS, "parallel__pipeline": 1, "parallel.data": "auto", "log.trace": True,
                          "optimizer.warmup-steps": 20, "optimizer__learning_rate": 3e-3})
        self.expect_metrics(RUN)
        self.assertEqual(files(self.path("algo-1", "ml", "model")), [])
        self.assertEqual(files(self.path(RUN, "checkpoints")), ["step-00000010", "step-00000020"])
        self.expect_model(os.path.join(RUN, "model"), RUN)
        self.assertIn("--log.trace True", self.log)  # so Python writes it
        self.assertTrue(os.path.exists(self.path(RUN, "trace.json")))
        self.assertFalse(os.path.exists(self.path("algo-1", "ml", "output", "failure")))

    def test_two_hosts_keep_a_part_each_and_go_on_from_what_s3_gives_back(self):
        self.start("v2", SHORT, hosts=2, variables={"PTRAIN_SM_MODEL": "1"})
        runs = [RUN, RUN_2]
        self.expect_metrics(runs[0])
        self.expect_model("algo-1/ml/model", runs[0])
        self.assertEqual(files(self.path("algo-2", "ml", "model")), [])
        step = "checkpoints/step-00000020"
        for host, run in enumerate(runs):
            self.assertIn(f"model-0000{host + 1}-of-00002.safetensors", files(self.path(run, step)))
            self.assertEqual(len(files(self.path(run, step, "state"))), 2)
        # S3 has both hosts' files under one prefix, none of a name twice, and both get all of them.
        bucket = os.path.join(ROOT, "bucket")
        kept = [self.path(f"algo-{host}", "ml", "checkpoints") for host in (1, 2)]
        names = [set(os.path.relpath(os.path.join(place, name), top) for place, _, some in os.walk(top) for name in some)
                 for top in kept]
        self.assertFalse(names[0] & names[1])
        for top in kept:
            shutil.copytree(top, bucket, dirs_exist_ok=True)
        self.start("v2", {**SHORT, "train.steps": 30}, "--checkpoints", bucket, hosts=2)
        self.assertIn("goes on after step 20", self.log)
        self.assertIn("step 30/30", self.log)
        # One host finds its own part alone, and does not begin anew.
        self.start("v2", {**SHORT, "train.steps": 30}, "--checkpoints", bucket, expected=1)
        self.assertIn("part 1 of 2", self.failure())

    def test_two_hosts_go_on_from_what_one_had(self):
        self.start("v2", SHORT)
        bucket = self.path("algo-1", "ml", "checkpoints")
        self.start("v2", {**SHORT, "train.steps": 30}, "--checkpoints", bucket, hosts=2)
        self.assertIn("goes on after step 20", self.log)
        self.assertIn("step 30/30", self.log)

    def test_a_wrong_key_is_the_reason_that_the_console_shows(self):
        self.start("v2", {**SHORT, "train.stepz": 3}, expected=1)  # the toolkit makes 1 of every code
        self.assertIn("ExitCode 2", self.log)
        self.assertEqual(self.failure(), "--train.stepz: unknown key train.stepz; did you mean train.steps?")
        self.assertEqual(files(self.path(RUN)), [])

    def test_what_fails_on_the_second_host_is_said_on_the_first(self):
        self.start("v2", {**SHORT, "output": "/opt/ml/there/run"}, "--before", "algo-2 echo >/opt/ml/there", hosts=2,
                   expected=1)
        self.assertIn("/opt/ml/there", self.failure())
        self.assertLessEqual(len(self.failure()), 1024)
        self.assertNotIn("mpirun", self.failure())


class SdkV3(Toolkit):
    def words(self, more=None):
        return {key.replace(".", "__"): value for key, value in {**SHORT, **(more or {})}.items()}

    def test_its_driver_starts_too_few_ranks_on_two_hosts_and_is_refused_with_the_way_out(self):
        self.start("v3", self.words(), hosts=2, expected=2)
        self.assertIn("this job 2 hosts, but its 2 ranks are on 1 of them", self.failure())
        self.assertIn('mpi_additional_options=["-np", "4", "--bind-to", "none"]', self.failure())
        self.assertLessEqual(len(self.failure()), 1024)

    def test_with_the_way_out_both_hosts_train(self):
        options = re.search(r"mpi_additional_options=(\[.*\])", read(os.path.join(SOURCE, "docs", "sagemaker.md"))).group(1)
        options = [str(word) for word in eval(options, {"hosts": 2, "ranks_a_host": 2, "str": str})]  # pylint: disable=eval-used
        self.assertEqual(options, ["-np", "4", "--bind-to", "none"])
        self.start("v3", self.words({"log.trace": True}), "--mpi-options", json.dumps(options), hosts=2)
        self.expect_metrics(RUN)
        self.assertIn("--log__trace true", self.log)
        self.assertTrue(os.path.exists(self.path(RUN, "trace.json")))
        self.assertEqual(files(self.path("algo-1", "ml", "model")), [])

    def test_a_rank_bound_to_one_core_is_warned_about(self):
        if os.cpu_count() < 2:
            self.skipTest("needs two cores")
        self.start("v3", self.words({"parallel.tensor": 1}), "--ranks", "1", variables={"OMP_NUM_THREADS": ""})
        self.assertRegex(self.log, r"warning: this rank may use 1 of the [0-9]+ cores .* mpirun --bind-to none")

    def test_a_wrong_key_is_the_reason_that_the_console_shows(self):
        self.start("v3", self.words({"train.stepz": 3}), expected=2)
        self.assertEqual(self.failure(), "--train.stepz: unknown key train.stepz; did you mean train.steps?")

    def test_one_host_needs_no_driver_but_a_command(self):
        text = re.sub(r"\s+", " ", read(os.path.join(SOURCE, "docs", "sagemaker.md")))
        words = re.search(r'SourceCode\(source_dir=".", command="(.*?) …"\)', text).group(1).replace("-np 8", "-np 2")
        for key, value in SHORT.items():
            words += f" --{key} {value}"
        self.start("command", {}, "--command", words)
        self.expect_metrics(RUN)


class ImageJob(Replay):
    """`train` of an image of one's own, over the root file system `base`."""

    base = "/"

    @classmethod
    def setUpClass(cls):
        cls.image = os.path.join(ROOT, "image-of-" + cls.__name__)
        command("bash", os.path.join(HARNESS, "image.sh"), "--base", cls.base, os.path.join(ROOT, "checkout"), cls.image,
                env={**os.environ, "CONFIG": "configs/demo.yaml"})

    def start(self, way, hyperparameters, *options, variables=None, **more):
        return super().start(way, hyperparameters, "--layer", self.image, "--base", self.base, *options,
                             variables={"PTRAIN_RANKS_A_HOST": "2", "PTRAIN_WAIT_S": "60", **(variables or {})}, **more)

    def expect_two_hosts(self):
        self.start("image", SHORT, hosts=2)
        self.expect_metrics(RUN)
        self.assertEqual(read(self.path("algo-2.code")).strip(), "0")
        self.assertIn("algo-2 serves algo-1", read(self.path("algo-2.log")))
        self.assertEqual(len(files(self.path(RUN_2, "checkpoints/step-00000020/state"))), 2)


class ImageOfDebian(ImageJob):
    """A Debian that has nothing but what the Dockerfile installs."""

    base = os.path.join(BUILD, "debian-of-image")

    @classmethod
    def setUpClass(cls):
        command("bash", os.path.join(HARNESS, "image.sh"), "--base", cls.base, "--install", SOURCE)
        super().setUpClass()

    def test_two_hosts_train_and_both_leave_with_the_first_ones_code(self):
        self.expect_two_hosts()


class Image(ImageJob):
    """The machine's own root file system stands in for the base, without its Python and its MPI."""

    def test_two_hosts_train_and_both_leave_with_the_first_ones_code(self):
        self.expect_two_hosts()

    def test_one_host_trains_without_python(self):
        self.start("image", {**SHORT, "log.trace": True}, variables={"PTRAIN_SM_MODEL": "1"})
        self.expect_metrics(RUN)
        self.expect_model("algo-1/ml/model", RUN)
        self.assertTrue(os.path.exists(self.path(RUN, "trace.json")))

    def test_a_failure_ends_both_with_its_code_and_its_reason(self):
        self.start("image", {**SHORT, "train.stepz": 3}, hosts=2, expected=2)
        self.assertEqual(read(self.path("algo-2.code")).strip(), "2")
        self.assertEqual(self.failure(), "--train.stepz: unknown key train.stepz; did you mean train.steps?")

    def test_a_reason_that_the_second_host_alone_knows_is_fetched(self):
        self.start("image", SHORT, "--before", "algo-2 rm -r /opt/ml/checkpoints; touch /opt/ml/checkpoints", hosts=2, expected=2)
        self.assertEqual(self.failure(), "/opt/ml/checkpoints/algo-2 cannot be made on algo-2")

    def test_a_job_that_is_stopped_saves(self):
        self.start("image", {**SHORT, "train.steps": 5000, "checkpoint.every": 5000, "evaluation.every": 0}, "--term-when",
                   "step 5/", hosts=2, expected=75)
        self.assertEqual(read(self.path("algo-2.code")).strip(), "75")
        self.assertIn("told to stop", self.log)
        self.assertEqual(len(files(self.path(RUN, "checkpoints"))), 1)


if __name__ == "__main__":
    result = unittest.main(verbosity=2, exit=False).result
    is_all_skipped = result.skipped and len(result.skipped) >= result.testsRun
    sys.exit(1 if not result.wasSuccessful() else 77 if is_all_skipped else 0)
