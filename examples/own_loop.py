"""Your own training loop, with only the loss from nuat: plain PyTorch.

python examples/own_loop.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nuat import Linf, Moment, NuAT, Ramp, evaluate
from nuat.data import load

EPOCHS = 15
digits = load("digits")
train = DataLoader(TensorDataset(digits.train.x, digits.train.y), batch_size=64, shuffle=True)

torch.manual_seed(0)
f = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(1024, 10),
)
method = NuAT(ball=Linf(0.15), lam=Ramp(to=5.0, epochs=EPOCHS))
optimiser = torch.optim.Adam(f.parameters(), lr=2e-3)

for epoch in range(EPOCHS):
    f.train()
    for batch, (x, y) in enumerate(train):
        t = Moment(epoch, batch, batch_size=64)
        for loss in method.step(f, x, y, t):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

scores = evaluate(f, digits.test, Linf(0.15), ["pgd-20", "gama-100"])
print(f"clean {scores.clean:.1%}, robust {scores.worst:.1%}")
