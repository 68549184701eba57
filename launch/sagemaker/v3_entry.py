#!/usr/bin/env python3
"""Entry script for SageMaker's SDK v3, whose MPI driver runs `python -m mpi4py ENTRY --key value ...` on every rank.

Nothing of MPI has been started yet, so this process can become train.sh and then ptrain.
"""
import os
import sys

entry = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train.sh")
os.execv("/bin/sh", ["/bin/sh", entry] + sys.argv[1:])
