"""Your own training loop in plain PyTorch, with only the loss from nuat.

python examples/own_loop.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nuat import Linf, NuAT, StepContext, evaluate
from nuat.data import load_dataset

EPOCHS = 15
digits = load_dataset("digits")
train = DataLoader(TensorDataset(digits.train.x, digits.train.y), batch_size=64, shuffle=True)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(1024, 10),
)
method = NuAT(ball=Linf(0.15)).with_epochs(EPOCHS)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(EPOCHS):
    model.train()
    for batch, (x, y) in enumerate(train):
        ctx = StepContext(epoch, batch, batch_size=64)
        for loss in method.step(model, x, y, ctx):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

scores = evaluate(model, digits.test, Linf(0.15), ["pgd-20", "gama-100"])
print(f"clean {scores.clean_accuracy:.1%}, robust {scores.worst_case_accuracy:.1%}")
