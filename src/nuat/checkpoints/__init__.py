"""Run folders, weights files, and the models loaded from them."""

from nuat.checkpoints.finetune import InitialWeights, load_initial_weights, resolve_init
from nuat.checkpoints.loading import LoadedModel, load_model, read_metadata
from nuat.checkpoints.probe import check_probe, probe_metadata
from nuat.checkpoints.run import Run
from nuat.checkpoints.weights_io import check_weights, read_weights, write_weights

__all__ = [
    "InitialWeights",
    "check_weights",
    "LoadedModel",
    "Run",
    "check_probe",
    "load_initial_weights",
    "load_model",
    "probe_metadata",
    "read_metadata",
    "read_weights",
    "resolve_init",
    "write_weights",
]
