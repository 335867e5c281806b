"""The network published with GAT for MNIST."""

from __future__ import annotations

from torch import Tensor, nn


class MNISTNet(nn.Module):
    """Two pairs of 5x5 convolutions (32, 64) with max-pooling, then 512, then the classes.

    No BatchNorm and no dropout; 28x28 images; 1,791,466 parameters for one channel and 10 classes.
    Source: the published code of arXiv:2011.14969.
    """

    def __init__(self, classes: int, channels: int = 1):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.head(self.features(x))
        return logits
