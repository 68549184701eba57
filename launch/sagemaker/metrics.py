"""What SageMaker reads from ptrain's log: a list for metric_definitions (SDK v2) or its v3 counterpart."""

NUMBER = r"([0-9.eE+-]+)"
STEP = r"step [0-9]+/[0-9]+  "

METRIC_DEFINITIONS = [
    {"Name": "train:loss", "Regex": STEP + r"loss " + NUMBER},
    {"Name": "train:grad_norm", "Regex": STEP + r".*norm " + NUMBER},
    {"Name": "train:learning_rate", "Regex": STEP + r".*lr " + NUMBER},
    {"Name": "train:tokens_per_s", "Regex": STEP + r".*  " + NUMBER + r" tokens/s"},
    {"Name": "train:mfu_percent", "Regex": STEP + r".*mfu " + NUMBER + r" %"},
    {"Name": "validation:loss", "Regex": STEP + r"validation loss " + NUMBER},
]
