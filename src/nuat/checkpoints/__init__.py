"""Run folders, weights, and networks loaded from them."""

from nuat.checkpoints.finetune import InitialWeights, load_initial_weights, resolve_init
from nuat.checkpoints.loading import LoadedModel, load_model, read_metadata
from nuat.checkpoints.probe import probe_metadata
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import read_weights, write_weights

__all__ = [
    "Run",
    "InitialWeights",
    "LoadedModel",
    "resolve_init",
    "read_metadata",
    "read_weights",
    "load_initial_weights",
    "probe_metadata",
    "load_model",
    "write_weights",
]
