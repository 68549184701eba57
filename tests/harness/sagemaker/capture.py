"""Runs an example of SageMaker's SDK without an account: AWS's answers are made up here, what would be sent is kept.

  capture.py OUT EXAMPLE WORDS...      in the directory of the example, with the SDK's Python. OUT: a new directory;
                                       request.json is what CreateTrainingJob was given, the rest the files sent to S3
"""
import json
import os
import runpy
import sys

out, example = sys.argv[1:3]
os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
import botocore.client  # pylint: disable=wrong-import-position

ACCOUNT = "123456789012"
ROLE = {"Arn": f"arn:aws:iam::{ACCOUNT}:role/job", "AssumeRolePolicyDocument": {"Statement": [
    {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}]}}
ANSWERS = {
    "GetCallerIdentity": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/somebody", "UserId": "x"},
    "GetRole": {"Role": ROLE},
    "SimulatePrincipalPolicy": {"EvaluationResults": []},
    "ListBuckets": {"Buckets": [{"Name": f"sagemaker-us-east-1-{ACCOUNT}", "CreationDate": None}]},
    "HeadBucket": {"ResponseMetadata": {"HTTPHeaders": {}}},
    "PutObject": {"ETag": "x"},
}


def answer(_, name, words):
    if name == "PutObject":
        body = words["Body"]
        with open(os.path.join(out, os.path.basename(words["Key"])), "wb") as file:
            file.write(body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else body.read())
    if name == "CreateTrainingJob":
        with open(os.path.join(out, "request.json"), "w", encoding="utf-8") as file:
            json.dump(words, file)
        os._exit(0)  # nothing would answer from here on
    return ANSWERS[name]


os.mkdir(out)
botocore.client.BaseClient._make_api_call = answer
sys.argv = sys.argv[2:]
sys.path.insert(0, os.getcwd())
runpy.run_path(example, run_name="__main__")
