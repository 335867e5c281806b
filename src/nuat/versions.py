"""What a result was made with."""

import platform
from importlib.metadata import version

import numpy
import torch


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    return {
        "nuat": version("nuat"),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
