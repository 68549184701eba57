"""SageMaker Python SDK v2: a training job of ptrain on two p4d.24xlarge, 16 ranks.

    pip install "sagemaker<3"
    python estimator_v2.py IMAGE ROLE S3_PREFIX

IMAGE: one of AWS's for PyTorch, for its Open MPI 4, CUDA, NCCL and aws-ofi-nccl. The directory of this file is the
source_dir: a bundle and config.yaml lie in it, see docs/sagemaker.md. The class is PyTorch since the plain Estimator
takes no `distribution`: it drops it without a word, and the job would start one rank a host, each on its own.
"""
import sys

from sagemaker.pytorch import PyTorch

from metrics import METRIC_DEFINITIONS

image, role, prefix = sys.argv[1:4]
estimator = PyTorch(
    image_uri=image,
    role=role,
    instance_type="ml.p4d.24xlarge",
    instance_count=2,
    entry_point="train.sh",
    source_dir=".",
    volume_size=500,
    max_run=5 * 24 * 3600,
    distribution={"mpi": {"enabled": True, "processes_per_host": 8}},
    hyperparameters={
        "optimizer.learning_rate": 1e-5,
        "checkpoint.every": 200,
        "checkpoint.storage": "per_node",
        "checkpoint.upload": f"{prefix}/checkpoints",
    },
    metric_definitions=METRIC_DEFINITIONS,
    output_path=f"{prefix}/output",
)
estimator.fit({"train": f"{prefix}/data/train", "validation": f"{prefix}/data/validation", "model": f"{prefix}/model"})
