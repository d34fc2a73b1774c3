"""Prints how many bytes a rank sends for one step, and how many the gradients are."""
from __future__ import annotations

import json

import numpy as np
from mpi4py import MPI

import graphc as gc
from graphc import nn, optim

step = gc.train_step(nn.Linear(256) >> nn.relu >> nn.Linear(64), loss=nn.mse, optimizer=optim.SGD(0.1), shards=4,
                     x=gc.f32[8, 128], y=gc.f32[8, 64], seed=0, comm=MPI.COMM_WORLD)
x, y = np.ones((2, 128), "f4"), np.ones((2, 64), "f4")
step(x, y)
before = step.ranks.sent
step(x, y)
gradients = sum(a.nbytes for a in step.weights().values())
print(json.dumps({"sent": step.ranks.sent - before, "gradients": gradients}) + "\n", end="", flush=True)
