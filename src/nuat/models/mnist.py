"""The networks published with GAT and with TRADES for MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from nuat.models.validation import check_sizes


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


class TradesMNISTNet(nn.Module):
    """Two pairs of 3x3 convolutions (32, 64) with max-pooling, then 200, 200, the classes.

    No padding and no BatchNorm; dropout after the first 200; the last layer starts at zero, the
    convolutions as in arXiv:1502.01852. 28x28 images; 312,202 parameters for one channel and 10
    classes. Source: SmallCNN in the published code of arXiv:1901.08573.
    """

    def __init__(self, classes: int, channels: int = 1, dropout: float = 0.5):
        super().__init__()
        check_sizes(classes=classes, channels=channels)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 200),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(200, 200),
            nn.ReLU(),
        )
        self.head = nn.Linear(200, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.head(self.hidden(self.features(x)))
        return logits
