"""Run folders, weights, and networks loaded from them."""

from nuat.checkpoints.finetune import Start, beginning, start_from
from nuat.checkpoints.loading import Trained, described, trained
from nuat.checkpoints.probe import told
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights, write_weights

__all__ = [
    "Run",
    "Start",
    "Trained",
    "beginning",
    "described",
    "read_weights",
    "start_from",
    "told",
    "trained",
    "write_weights",
]
