"""Models by name: `build_model("small-cnn(width=32)", classes=10, channels=1)`."""

from nuat.models.architecture import is_torch_container, requires_trust, same_architecture
from nuat.models.building import (
    build_model,
    class_name,
    model_name,
    normalization_notes,
    startup_notes,
)
from nuat.models.normalize import Normalized
from nuat.models.registry import list_models, model_registry, register_model
from nuat.models.small import SmallCNN

__all__ = [
    "Normalized",
    "SmallCNN",
    "build_model",
    "class_name",
    "is_torch_container",
    "list_models",
    "model_name",
    "model_registry",
    "normalization_notes",
    "register_model",
    "requires_trust",
    "same_architecture",
    "startup_notes",
]
