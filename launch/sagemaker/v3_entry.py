#!/usr/bin/env python3
"""Entry script for SageMaker's SDK v3, whose MPI driver runs `python -m mpi4py ENTRY --key value ...` on every rank.

Nothing of MPI has been started yet, so this process can become train.sh and then ptrain. Files that came from S3 have
lost their execute bit; it is put back.
"""
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
for name in ("train.sh", "ptrain"):
    path = os.path.join(here, name)
    if os.path.exists(path) and not os.access(path, os.X_OK):
        os.chmod(path, 0o755)
entry = os.path.join(here, "train.sh")
os.execv("/bin/sh", ["/bin/sh", entry] + sys.argv[1:])
