"""Networks by name: `build("small-cnn(width=32)", classes=10, channels=1)`."""

from nuat.models.building import (
    build,
    is_a_kit,
    name_of,
    remarks,
    runs_code_unasked,
    same_architecture,
)
from nuat.models.normalize import Normalised
from nuat.models.registry import models
from nuat.models.small import SmallCNN

__all__ = [
    "Normalised",
    "SmallCNN",
    "build",
    "models",
    "name_of",
    "is_a_kit",
    "remarks",
    "runs_code_unasked",
    "same_architecture",
]
