"""A small convolutional model for small images."""

from __future__ import annotations

from torch import Tensor, nn

from nuat.errors import check_positive_int


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU, two of them with stride 2; mean; head.

    Images [B, channels, H, W] in [0, 1] of any size from 4x4 up, not normalized; logits
    [B, classes]. With width 16, one channel and 10 classes it has 24,058 parameters. Source: ours,
    for the 8x8 digits.
    """

    def __init__(self, classes: int, channels: int = 1, width: int = 16):
        super().__init__()
        check_positive_int("width", width)
        self.features = nn.Sequential(
            *_convolution(channels, width),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
