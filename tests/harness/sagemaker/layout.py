"""Lays out /opt/ml of one host of a training job, as SageMaker and its SDKs do.

  layout.py ML WAY HOST HOSTS RANKS CODE HYPERPARAMETERS CHANNELS OPTIONS COMMAND VENV

ML: what will be /opt/ml; WAY: v2, v3, command or image; HOSTS: with commas; CODE: the source directory; HYPERPARAMETERS:
what a user gives the SDK, as JSON; CHANNELS: names with commas; OPTIONS: of mpirun, a JSON list; COMMAND: of
SourceCode(command=); VENV: see toolkit.sh.
"""
import json
import os
import runpy
import shutil
import sys

ml, way, host, hosts, ranks, code, hyperparameters, channels, options, command, venv = sys.argv[1:]
hosts, channels = hosts.split(","), [name for name in channels.split(",") if name]
hyperparameters, options = json.loads(hyperparameters), json.loads(options)
ENTRY = {"v2": "train.sh", "v3": "v3_entry.py"}
GROUP = "homogeneousCluster"
INSTANCE = "ml.c5.2xlarge"


def put(value, *names):
    with open(os.path.join(ml, *names), "w", encoding="utf-8") as file:
        file.write(value if isinstance(value, str) else json.dumps(value))


for names in (("input", "config"), ("input", "data"), ("model",), ("output", "data"), ("checkpoints",), ("code",)):
    os.makedirs(os.path.join(ml, *names), exist_ok=True)

# 1. The words: v2 writes each as JSON, v3 leaves text as it is, an estimator without source code takes str().
if way == "v2":
    words = {key: json.dumps(value) for key, value in hyperparameters.items()}
    words.update(sagemaker_program=json.dumps(ENTRY[way]), sagemaker_container_log_level="20",
                 sagemaker_job_name=json.dumps("replay"), sagemaker_mpi_enabled="true",
                 sagemaker_mpi_num_of_processes_per_host=ranks,
                 sagemaker_mpi_custom_mpi_options=json.dumps(" ".join(options)))
elif way == "image":
    words = {key: str(value) for key, value in hyperparameters.items()}
else:
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in hyperparameters.items()}
put(words, "input", "config", "hyperparameters.json")
put({"current_host": host, "current_instance_type": INSTANCE, "current_group_name": GROUP, "hosts": hosts,
     "instance_groups": [{"instance_group_name": GROUP, "instance_type": INSTANCE, "hosts": hosts}],
     "network_interface_name": "eth0"}, "input", "config", "resourceconfig.json")

# 2. The code: v2 unpacks an archive; v3 has it from S3, without execute bits, links and empty directories.
if way == "v2":
    shutil.copytree(code, os.path.join(ml, "code"), dirs_exist_ok=True)
elif way != "image":
    channels += ["code", "sm_drivers"]
    for directory, _, files in os.walk(code):
        for name in files:
            place = os.path.join(ml, "input", "data", "code", os.path.relpath(directory, code), name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copyfile(os.path.join(directory, name), place)
            os.chmod(place, 0o644)
put({name: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
     for name in channels}, "input", "config", "inputdataconfig.json")

# 3. What ModelTrainer sends along.
if way in ("v3", "command"):
    drivers = os.path.join(ml, "input", "data", "sm_drivers")
    shutil.copytree(os.path.join(venv, "v3", "sagemaker", "train", "container_drivers"), drivers)
    shutil.copy(os.path.join(venv, "v3", "sagemaker", "core", "utils", "install_requirements.py"),
                os.path.join(drivers, "scripts"))
    templates = runpy.run_path(os.path.join(venv, "v3", "sagemaker", "train", "templates.py"))
    if way == "command":
        run = templates["EXECUTE_BASE_COMMANDS"].format(base_command=" ".join(command.split()))
        distributed, source = {}, {"command": command, "source_dir": "code"}
    else:
        run = templates["EXEUCTE_DISTRIBUTED_DRIVER"].format(driver_name="MPI", driver_script="mpi_driver.py")
        distributed = {"process_count_per_node": int(ranks), "mpi_additional_options": options or None}
        source = {"entry_script": ENTRY[way], "source_dir": "code"}
    put(templates["TRAIN_SCRIPT_TEMPLATE"].format(working_dir="cd /opt/ml/input/data/code \n", install_requirements="",
                                                  execute_driver=run), "input", "data", "sm_drivers", "sm_train.sh")
    put(distributed, "input", "data", "sm_drivers", "distributed.json")
    put(source, "input", "data", "sm_drivers", "sourcecode.json")
