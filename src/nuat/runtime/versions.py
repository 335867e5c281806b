"""What a result was made with."""

import platform

import numpy
import torch

VERSION = "0.1.0"
"""Of nuat; pyproject.toml reads it here, so that the source runs without being installed."""


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    return {
        "nuat": VERSION,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
