"""Attack, then train, a network of your own on your own tensors.

python examples/own_network.py
"""

import torch
from torch import nn

import nuat
from nuat.data import load_dataset

EPOCHS = 10
digits = load_dataset("digits")  # stands for tensors of your own: images in [0, 1], [N, C, H, W]
train, test = (digits.train.x, digits.train.y), (digits.test.x, digits.test.y)

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip

ball = nuat.Linf(0.15)
before = nuat.evaluate(network, test, ball, ["pgd-20"])
recipe = nuat.get_recipe("nuat-wa", "digits").with_epochs(EPOCHS)
nuat.fit(recipe, network, data=train, out="runs/own-network")
after = nuat.evaluate(network, test, ball, ["pgd-20"])
print(f"robust {before.worst_case_accuracy:.1%} before, {after.worst_case_accuracy:.1%} after")
