"""SageMaker Python SDK v3: the same job as estimator_v2.py.

    pip install "sagemaker>=3"
    python trainer_v3.py IMAGE ROLE S3_PREFIX

The SDK's MPI driver gives mpirun the number of ranks of one host as the number of all: on several hosts most would
stay idle, and ptrain refuses to start so. The options below set both right: the later -np wins, and without
--bind-to none every rank would share one core.

The SDK makes a shell variable of each hyperparameter's name, which may have no dot: two underscores stand for one.

On one host no driver is needed: SourceCode(source_dir=".", command="mpirun --allow-run-as-root -np 8 --bind-to none
sh train.sh --checkpoint.every 200") does it.
"""
import sys

from sagemaker.core.shapes import MetricDefinition
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode, StoppingCondition
from sagemaker.train.distributed import MPI

from metrics import METRIC_DEFINITIONS

HOSTS, RANKS_A_HOST = 2, 8

image, role, prefix = sys.argv[1:4]
trainer = ModelTrainer(
    training_image=image,
    role=role,
    source_code=SourceCode(source_dir=".", entry_script="v3_entry.py"),
    compute=Compute(instance_type="ml.p4d.24xlarge", instance_count=HOSTS, volume_size_in_gb=500),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=5 * 24 * 3600),  # else one hour
    output_data_config=OutputDataConfig(s3_output_path=f"{prefix}/output"),
    distributed=MPI(
        process_count_per_node=RANKS_A_HOST,
        mpi_additional_options=["-np", str(HOSTS * RANKS_A_HOST), "--bind-to", "none"],
    ),
    hyperparameters={
        "optimizer__learning_rate": 1e-5,
        "checkpoint__every": 200,
        "checkpoint__storage": "per_node",
        "checkpoint__upload": f"{prefix}/checkpoints",
    },
).with_metric_definitions([MetricDefinition(name=one["Name"], regex=one["Regex"]) for one in METRIC_DEFINITIONS])
trainer.train(
    input_data_config=[
        InputData(channel_name=name, data_source=f"{prefix}/{path}")
        for name, path in (("train", "data/train"), ("validation", "data/validation"), ("model", "model"))
    ]
)
