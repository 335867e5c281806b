"""Small networks for small images."""

from __future__ import annotations

from torch import Tensor, nn

from nuat.models.validation import check_sizes


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU, halving the image twice; mean; linear.

    Images [B, channels, H, W] of any size from 4 up, logits [B, classes]. Ours: made for the 8x8
    digits; with width 16 and one channel it has 24,058 parameters.
    """

    def __init__(self, classes: int, channels: int = 1, width: int = 16):
        super().__init__()
        check_sizes(classes=classes, channels=channels, width=width)
        self.features = nn.Sequential(
            *_convolution(channels, width),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
