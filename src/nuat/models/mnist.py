"""The models published with GAT and with TRADES for MNIST, for images of 28x28."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class MNISTNet(nn.Module):
    """Two pairs of 5x5 convolutions (32, 64) with max-pooling, a layer of 512, and the head.

    Images [B, channels, 28, 28] in [0, 1]; logits [B, classes]. It has no BatchNorm and no dropout,
    and 1,791,466 parameters for one channel and 10 classes. Source: the published code of
    arXiv:2011.14969.
    """

    def __init__(self, classes: int, channels: int = 1):
        super().__init__()
        self.features = nn.Sequential(
            *_conv_pair(channels, 32, kernel=5, padding=2),
            *_conv_pair(32, 64, kernel=5, padding=2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class TradesMNISTNet(nn.Module):
    """Two pairs of 3x3 convolutions (32, 64) with max-pooling, layers of 200 and 200, and the head.

    Images [B, channels, 28, 28] in [0, 1]; logits [B, classes]. It has no padding and no BatchNorm;
    dropout follows the first layer of 200; the head is initialized to zero, the convolutions as in
    arXiv:1502.01852. It has 312,202 parameters for one channel and 10 classes. Source: SmallCNN in
    the published code of arXiv:1901.08573. The layers have the names of that code, so that its
    published weights load.
    """

    def __init__(self, classes: int, channels: int = 1, dropout: float = 0.5):
        super().__init__()
        names = ["conv1", "relu1", "conv2", "relu2", "maxpool1"]
        names += ["conv3", "relu3", "conv4", "relu4", "maxpool2"]
        layers = (*_conv_pair(channels, 32, kernel=3), *_conv_pair(32, 64, kernel=3))
        self.feature_extractor = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(64 * 4 * 4, 200),
                relu1=nn.ReLU(),
                drop=nn.Dropout(dropout),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, classes),
            )
        )
        for layer in layers:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        head = self.classifier.get_submodule("fc3")
        for weight in head.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.feature_extractor(x))
        return logits


def _conv_pair(inputs: int, outputs: int, kernel: int, padding: int = 0) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel, padding=padding),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, kernel, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
