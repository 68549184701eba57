"""The scripts of launch/slurm and launch/sagemaker, as far as they can be tested without a cluster: with stand-ins for
mpirun, srun, ssh and ptrain that write down how they were called; the metric patterns with lines of a real run.

  cluster_scripts_test.py SOURCE PTRAIN
"""
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PTRAIN = os.path.abspath(sys.argv.pop(2))
SOURCE = os.path.abspath(sys.argv.pop(1))
SAGEMAKER = os.path.join(SOURCE, "launch", "sagemaker")
sys.dont_write_bytecode = True


class Place:
    """A directory with programs of its own in front of PATH."""

    def __init__(self):
        self.root = tempfile.mkdtemp()
        self.bin = os.path.join(self.root, "bin")
        os.mkdir(self.bin)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def program(self, name, text):
        file = name if os.path.isabs(name) else os.path.join(self.bin, name)
        with open(file, "w", encoding="utf-8") as out:
            out.write("#!/bin/bash\n" + text)
        os.chmod(file, 0o755)

    def environment(self, **more):
        kept = {key: value for key, value in os.environ.items() if not re.match("SLURM_|OMPI_|PMIX|SM_|PTRAIN", key)}
        return {**kept, "PATH": self.bin + ":" + os.environ["PATH"], **more}

    def run(self, *command, **more):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.root,
                              env=self.environment(**more))

    def read(self, *names):
        with open(self.path(*names), encoding="utf-8") as file:
            return file.read()


class Test(unittest.TestCase):
    def setUp(self):
        self.place = Place()
        self.addCleanup(shutil.rmtree, self.place.root)


class Entry(Test):
    """train.sh: what SageMaker's words and variables become."""

    def words(self, *words, **variables):
        variables.setdefault("SM_ROOT", self.place.path("ml"))
        self.place.program(self.place.path("ptrain"), 'printf "%s\\n" "$@"\n')
        shutil.copy(os.path.join(SAGEMAKER, "train.sh"), self.place.path("train.sh"))
        done = self.place.run("sh", self.place.path("train.sh"), *words, **variables)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def test_hyperparameters_pass_unchanged_and_the_rest_is_filled_in(self):
        words = self.words("--optimizer.learning_rate", "0.0001", "--log.trace", "True")
        self.assertEqual(words[:4], ["--optimizer.learning_rate", "0.0001", "--log.trace", "True"])
        self.assertIn("--config=" + self.place.path("config.yaml"), words)
        self.assertIn("--output=" + self.place.path("ml", "checkpoints", os.uname().nodename, "run"), words)

    def test_two_underscores_stand_for_a_dot_in_names_alone(self):
        words = self.words("--optimizer__learning_rate", "1e-5", "--log__every=2", "a__b", "--output", "/x y__z")
        self.assertEqual(words[:6], ["--optimizer.learning_rate", "1e-5", "--log.every=2", "a__b", "--output", "/x y__z"])

    def test_an_upload_moves_the_output_off_the_synced_directory(self):
        self.assertIn("--output=" + self.place.path("ml", "local", "run"), self.words("--checkpoint.upload", "s3://b/p"))

    def test_several_hosts_have_a_directory_each_where_s3_gets_it_from(self):
        os.makedirs(self.place.path("ml", "input", "config"))
        with open(self.place.path("ml", "input", "config", "resourceconfig.json"), "w", encoding="utf-8") as file:
            json.dump({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}, file)
        variables = {"SM_HOSTS": '["algo-1","algo-2"]', "SM_CURRENT_HOST": "algo-1"}
        for _ in range(2):  # the ranks of a host
            self.assertIn("--output=" + self.place.path("ml", "host", "run"), self.words(**variables))
        self.assertEqual(os.readlink(self.place.path("ml", "host")), self.place.path("ml", "checkpoints", "algo-2"))
        self.assertEqual(os.listdir(self.place.path("ml", "checkpoints", "algo-2")), [])
        self.assertIn("--output=" + self.place.path("ml", "local", "run"), self.words("--checkpoint.upload", "s3://b/p", **variables))
        one = {**variables, "SM_HOSTS": '["algo-1"]'}
        self.assertIn("--output=" + self.place.path("ml", "checkpoints", "algo-2", "run"), self.words(**one))

    def test_a_bundle_is_found_beside_and_around_it(self):
        for name in (os.path.join("bundle", "bin"), "bin"):
            os.makedirs(self.place.path("code", name), exist_ok=True)
            self.place.program(self.place.path("code", name, "ptrain"), f'echo "{name}"\n')
            os.chmod(self.place.path("code", name, "ptrain"), 0o644)
            shutil.copy(os.path.join(SAGEMAKER, "train.sh"), self.place.path("code", "train.sh"))
            done = self.place.run("sh", self.place.path("code", "train.sh"), SM_ROOT=self.place.path("ml"))
            self.assertEqual((done.returncode, done.stdout), (0, name + "\n"), done.stderr)
            shutil.rmtree(self.place.path("code"))

    def test_channels_become_data_and_model(self):
        os.makedirs(self.place.path("train"))
        for name in ("a.jsonl", "b.jsonl", "notes.txt"):
            open(self.place.path("train", name), "w", encoding="utf-8").close()
        words = self.words(SM_CHANNEL_TRAIN=self.place.path("train"), SM_CHANNEL_MODEL="/opt/ml/input/data/model")
        files = f"[{self.place.path('train', 'a.jsonl')}, {self.place.path('train', 'b.jsonl')}]"
        self.assertEqual(words[words.index("--data.train") + 1], files)
        self.assertIn("--model.path=/opt/ml/input/data/model", words)

    def test_what_was_said_wins(self):
        words = self.words("--output", "/x", "--config=/y.yaml", "--data.train", "/z.jsonl", SM_CHANNEL_TRAIN="/t")
        self.assertEqual(words, ["--output", "/x", "--config=/y.yaml", "--data.train", "/z.jsonl"])

    def test_without_a_program_it_says_so(self):
        shutil.copy(os.path.join(SAGEMAKER, "train.sh"), self.place.path("train.sh"))
        os.makedirs(self.place.path("ml", "input"))
        done = self.place.run("sh", self.place.path("train.sh"), PTRAIN="/none", SM_ROOT=self.place.path("ml"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("no ptrain", done.stderr)
        self.assertIn("no ptrain", self.place.read("ml", "output", "failure"))

    def test_the_shim_of_sdk_v3_becomes_the_entry_point(self):
        self.place.program(self.place.path("ptrain"), 'echo "pid $$ $1 $2"\n')
        for name in ("train.sh", "v3_entry.py"):
            shutil.copy(os.path.join(SAGEMAKER, name), self.place.path(name))
            os.chmod(self.place.path(name), 0o644)  # as it comes from S3
        os.chmod(self.place.path("ptrain"), 0o644)
        done = self.place.run(sys.executable, self.place.path("v3_entry.py"), "--train.steps", "3",
                              SM_ROOT=self.place.path("ml"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"pid [0-9]+ --train.steps 3")


class Image(Test):
    """image/train: the program of an image of one's own, over hosts that are directories here."""

    def start(self, hosts, current, code=0, answers=True):
        base = self.place.path("ml")
        os.makedirs(os.path.join(base, "input", "config"))
        os.makedirs(os.path.join(base, "input", "data", "train"))
        with open(os.path.join(base, "input", "config", "resourceconfig.json"), "w", encoding="utf-8") as file:
            json.dump({"current_host": current, "hosts": hosts, "network_interface_name": "eth0"}, file)
        with open(os.path.join(base, "input", "config", "hyperparameters.json"), "w", encoding="utf-8") as file:
            json.dump({"train.steps": "5", "output": json.dumps("/a b"), "log.trace": "True",
                       "sagemaker_region": json.dumps("us-east-1")}, file)
        self.place.program("mpirun", f'printf "%s\\n" "$@" >mpirun.txt; echo "$SM_CHANNEL_TRAIN" >channel.txt; exit {code}\n')
        self.place.program("ssh", f'echo "$@" >>ssh.txt; exit {0 if answers else 255}\n')
        self.place.program("ssh-keygen", "")
        script = self.place.path("train")
        with open(os.path.join(SAGEMAKER, "image", "train"), encoding="utf-8") as file:
            text = file.read()
        # What needs the machine's root: the daemon and its files.
        text = text.replace("/usr/sbin/sshd -D -e", "sleep 30").replace("mkdir -p /run/sshd", ":")
        text = text.replace("/tmp/ptrain-done", self.place.path("done"))
        self.place.program(script, text)
        return self.place.run("bash", script, SM_ROOT=base, PTRAIN_RANKS_A_HOST="4", PTRAIN_WAIT_S="1", NCCL_DEBUG="INFO")

    def setUp(self):
        super().setUp()
        if shutil.which("jq") is None:
            self.skipTest("jq is not installed")

    def test_the_first_host_runs_mpirun_over_all_in_order(self):
        done = self.start(["algo-10", "algo-2", "algo-1"], "algo-1")
        self.assertEqual(done.returncode, 0, done.stderr)
        words = self.place.read("mpirun.txt").splitlines()
        self.assertEqual(words[words.index("--host") + 1], "algo-1:4,algo-2:4,algo-10:4")
        self.assertEqual(words[words.index("-np") + 1], "12")
        self.assertEqual(words[words.index("--bind-to") + 1], "none")
        entry = words.index("/opt/ptrain/train.sh")
        self.assertEqual(words[entry + 1:], ["--train.steps", "5", "--output", "/a b", "--log.trace", "True"])
        self.assertEqual(self.place.read("channel.txt").strip(), self.place.path("ml", "input", "data", "train"))
        passed = [words[i + 1] for i, word in enumerate(words) if word == "-x"]
        for name in ("NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "SM_HOSTS", "SM_CHANNEL_TRAIN", "PTRAIN_RANKS_A_HOST", "PATH"):
            self.assertIn(name, passed)
        self.assertNotIn("HOME", passed)
        self.assertEqual(self.place.read("ssh.txt").count("echo 0"), 2)  # the others may leave

    def test_an_exit_code_comes_out_and_a_reason_stays(self):
        self.assertEqual(self.start(["algo-1"], "algo-1", code=66).returncode, 66)
        self.assertIn("66", self.place.read("ml", "output", "failure"))

    def test_a_host_that_does_not_answer_is_named(self):
        done = self.start(["algo-1", "algo-2"], "algo-1", answers=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn("algo-1", self.place.read("ml", "output", "failure"))


class Slurm(Test):
    """train.sbatch: signals, exit codes, and the two ways to start."""

    def setUp(self):
        super().setUp()
        self.place.program("ptrain", "exit 0\n")
        self.place.program("scontrol", 'echo "$@" >>scontrol.txt; exit 1\n')
        self.variables = {"SLURM_SUBMIT_DIR": self.place.root, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}

    def launcher(self, name, lists, text):
        other = f'if [ "$1" = --mpi=list ]; then echo "{lists}"; exit; fi\n' if name == "srun" else ""
        self.place.program(name, other + f'printf "%s\\n" "$@" >{name}.txt\n' + text)

    def submit(self):
        return self.place.run("bash", os.path.join(SOURCE, "launch", "slurm", "train.sbatch"), "run.yaml",
                              "--train.steps", "3", **self.variables)

    def test_srun_where_slurm_has_pmix(self):
        self.launcher("srun", "none pmi2 pmix", "exit 0\n")
        self.assertEqual(self.submit().returncode, 0)
        words = self.place.read("srun.txt").splitlines()
        self.assertIn("--mpi=pmix", words)
        self.assertEqual(words[-3:], ["run.yaml", "--train.steps", "3"])

    def test_mpirun_where_it_has_none(self):
        self.launcher("srun", "none pmi2", "exit 9\n")
        self.launcher("mpirun", "", "exit 0\n")
        self.assertEqual(self.submit().returncode, 0)
        words = self.place.read("mpirun.txt").splitlines()
        self.assertEqual(words[words.index("-np") + 1], "4")

    def test_only_75_goes_back_into_the_queue(self):
        for code, is_requeued in ((75, True), (67, False), (1, False)):
            self.launcher("srun", "pmix", f"exit {code}\n")
            if os.path.exists(self.place.path("scontrol.txt")):
                os.remove(self.place.path("scontrol.txt"))
            self.assertEqual(self.submit().returncode, code)
            self.assertEqual(os.path.exists(self.place.path("scontrol.txt")), is_requeued, code)
            if is_requeued:
                self.assertEqual(self.place.read("scontrol.txt").strip(), "requeue 7")

    def test_the_notice_is_passed_on_and_waited_for(self):
        self.launcher("srun", "pmix", "trap 'sleep 0.3; exit 75' USR1; echo up >up.txt; while :; do sleep 0.1; done\n")
        script = os.path.join(SOURCE, "launch", "slurm", "train.sbatch")
        job = subprocess.Popen(["bash", script, "run.yaml"], cwd=self.place.root, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=self.place.environment(**self.variables))
        end = time.monotonic() + 30
        while not os.path.exists(self.place.path("up.txt")) and time.monotonic() < end:
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        text, _ = job.communicate(timeout=30)
        self.assertEqual(job.returncode, 75, text)
        self.assertIn("notice", text)

    def test_a_program_that_is_not_there_is_named(self):
        self.variables["PTRAIN"] = "/none/ptrain"
        done = self.submit()
        self.assertEqual(done.returncode, 2)
        self.assertIn("/none/ptrain", done.stderr)


class Metrics(Test):
    def test_every_pattern_finds_its_number_in_a_real_log(self):
        spec = importlib.util.spec_from_file_location("metrics", os.path.join(SAGEMAKER, "metrics.py"))
        metrics = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(metrics)
        data = self.place.path("data")
        subprocess.run(["bash", os.path.join(SOURCE, "launch", "demo_data.sh"), data], check=True, timeout=60)
        done = subprocess.run(
            [PTRAIN, "configs/demo.yaml", "--output", self.place.path("run"), "--data.train", data + "/train.jsonl",
             "--data.validation", data + "/validation.jsonl", "--parallel.tensor", "1", "--parallel.pipeline", "1",
             "--parallel.data", "1", "--batch.micro", "32", "--train.steps", "2", "--log.every", "1"],
            capture_output=True, text=True, timeout=120, cwd=SOURCE, env=self.place.environment())
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.place.path("run", "metrics.jsonl"), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        last = [row for row in rows if "loss" in row][-1]
        found = {}
        for definition in metrics.METRIC_DEFINITIONS:
            for number in re.findall(definition["Regex"], done.stdout):
                found[definition["Name"]] = float(number)
        self.assertAlmostEqual(found["train:loss"], last["loss"], places=3)
        self.assertAlmostEqual(found["train:grad_norm"], last["grad_norm"], places=2)
        self.assertAlmostEqual(found["train:learning_rate"] / last["lr"], 1, places=2)
        self.assertAlmostEqual(found["train:tokens_per_s"] / last["tokens_per_s"], 1, places=2)
        evaluated = [row for row in rows if "eval_loss" in row][-1]
        self.assertAlmostEqual(found["validation:loss"], evaluated["eval_loss"], places=3)
        mfu = next(one["Regex"] for one in metrics.METRIC_DEFINITIONS if one["Name"] == "train:mfu_percent")
        line = "step 50/1500  loss 1.4113  norm 0.632  lr 3.00e-03  46015 tokens/s  mfu 47.3 %  38 MiB  left 1:39"
        self.assertEqual(re.findall(mfu, line), ["47.3"])
        self.assertTrue(all(len(text) < 200 and "\r" not in text for text in done.stdout.splitlines()))


if __name__ == "__main__":
    unittest.main(verbosity=2)
