"""Taking a model away: as a folder with its card, to the Hub, to ONNX."""

from nuat.export.card import card
from nuat.export.folder import save_pretrained, save_state_dict
from nuat.export.hub import from_pretrained, push_to_hub
from nuat.export.onnx import to_onnx

__all__ = [
    "card",
    "from_pretrained",
    "push_to_hub",
    "save_pretrained",
    "save_state_dict",
    "to_onnx",
]
