"""Networks by name: `build("small-cnn(width=32)", classes=10, channels=1)`."""

from nuat.models.building import (
    build_model,
    is_torch_container,
    model_name,
    requires_trust,
    same_architecture,
    startup_notes,
)
from nuat.models.normalize import Normalized
from nuat.models.registry import list_models, model_registry, register_model
from nuat.models.small import SmallCNN

__all__ = [
    "Normalized",
    "SmallCNN",
    "build_model",
    "list_models",
    "model_registry",
    "register_model",
    "model_name",
    "is_torch_container",
    "startup_notes",
    "requires_trust",
    "same_architecture",
]
