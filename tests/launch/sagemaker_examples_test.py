"""The examples of launch/sagemaker with the SDKs they are for: what each asks SageMaker to do.

  sagemaker_examples_test.py SOURCE

Skipped where PTRAIN_SAGEMAKER_SDK2 and PTRAIN_SAGEMAKER_SDK3 do not name virtual environments (500 MB each) with
"sagemaker<3" and "sagemaker>=3".
"""
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(sys.argv.pop(1))
CAPTURE = os.path.join(SOURCE, "tests", "harness", "sagemaker", "capture.py")
METRICS = runpy.run_path(os.path.join(SOURCE, "launch", "sagemaker", "metrics.py"))["METRIC_DEFINITIONS"]


class Examples(unittest.TestCase):
    def request(self, variable, example):
        if variable not in os.environ:
            self.skipTest(f"{variable} names no environment with the SDK")
        root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, root)
        code, self.sent = os.path.join(root, "code"), os.path.join(root, "sent")
        shutil.copytree(os.path.join(SOURCE, "launch", "sagemaker"), code)
        done = subprocess.run([os.path.join(os.environ[variable], "bin", "python"), CAPTURE, self.sent, example,
                               "1.dkr.ecr.us-east-1.amazonaws.com/image:1", "arn:aws:iam::123456789012:role/job",
                               "s3://bucket/p"], cwd=code, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)
        return self.json("request.json")

    def json(self, name):
        with open(os.path.join(self.sent, name), encoding="utf-8") as file:
            return json.load(file)

    def expect_job(self, request):
        self.assertEqual(request["AlgorithmSpecification"]["MetricDefinitions"], METRICS)
        self.assertEqual((request["ResourceConfig"]["InstanceCount"], request["ResourceConfig"]["InstanceType"]),
                         (2, "ml.p4d.24xlarge"))
        self.assertEqual(request["StoppingCondition"]["MaxRuntimeInSeconds"], 432000)
        self.assertEqual(request["OutputDataConfig"]["S3OutputPath"], "s3://bucket/p/output")
        channels = {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"] for one in request["InputDataConfig"]}
        self.assertEqual([channels[name] for name in ("train", "validation", "model")],
                         ["s3://bucket/p/data/train", "s3://bucket/p/data/validation", "s3://bucket/p/model"])

    def test_v2_asks_for_eight_ranks_a_host_under_mpi(self):
        request = self.request("PTRAIN_SAGEMAKER_SDK2", "estimator_v2.py")
        self.expect_job(request)
        words = request["HyperParameters"]
        self.assertEqual(words["sagemaker_mpi_enabled"], "true")
        self.assertEqual(words["sagemaker_mpi_num_of_processes_per_host"], "8")
        self.assertEqual(words["sagemaker_program"], '"train.sh"')
        self.assertEqual(words["checkpoint.upload"], '"s3://bucket/p/checkpoints"')
        self.assertEqual(words["optimizer.learning_rate"], "1e-05")

    def test_v3_asks_for_sixteen_ranks_that_are_not_bound(self):
        request = self.request("PTRAIN_SAGEMAKER_SDK3", "trainer_v3.py")
        self.expect_job(request)
        self.assertFalse([name for name in request["HyperParameters"] if "." in name])
        self.assertEqual(request["HyperParameters"]["checkpoint__upload"], "s3://bucket/p/checkpoints")
        self.assertEqual(self.json("distributed.json"), {"process_count_per_node": 8, "mpi_additional_options": [
            "-np", "16", "--bind-to", "none"]})
        self.assertEqual(self.json("sourcecode.json")["entry_script"], "v3_entry.py")


if __name__ == "__main__":
    result = unittest.main(verbosity=2, exit=False).result
    sys.exit(1 if not result.wasSuccessful() else 77 if len(result.skipped) == result.testsRun else 0)
