"""The versions of nuat and of the libraries it computes with."""

import platform

import numpy
import torch

__version__ = "0.1.0"
"""The version of nuat. pyproject.toml reads it here, so the source also runs uninstalled."""


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on, by name."""
    return {
        "nuat": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
