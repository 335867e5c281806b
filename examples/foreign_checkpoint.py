"""Attack a checkpoint that another library saved.

python examples/foreign_checkpoint.py
"""

import tempfile
from pathlib import Path

import torch

import nuat
from nuat.data import load_dataset

# Somebody's training script has wrapped its network in DataParallel and saved this.
network = nuat.build_model("small-cnn(width=32)", classes=10, channels=1)
network.load_state_dict(nuat.load_model("nuat:digits/pgd-at").model.state_dict())
file = Path(tempfile.mkdtemp()) / "checkpoint.pth"
torch.save({"epoch": 40, "state_dict": torch.nn.DataParallel(network).state_dict()}, file)

loaded = nuat.load_model(file, model="small-cnn(width=32)", classes=10, channels=1)
scores = nuat.evaluate(loaded.model, load_dataset("digits").test, nuat.Linf(0.15), ["pgd-20"])
print(scores)
