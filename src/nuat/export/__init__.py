"""Exporting a trained model: a folder with a model card, a state dict, ONNX, the Hub."""

from nuat.export.card import model_card
from nuat.export.folder import save_pretrained, save_state_dict
from nuat.export.hub import from_pretrained, push_to_hub
from nuat.export.onnx import to_onnx

__all__ = [
    "from_pretrained",
    "model_card",
    "push_to_hub",
    "save_pretrained",
    "save_state_dict",
    "to_onnx",
]
