"""Wide ResNets (arXiv:1605.07146): 34-10 as published with NuAT, and as used with TRADES."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from nuat.errors import InputError
from nuat.models.validation import check_sizes


class WideBlock(nn.Module):
    """Pre-activation block of two 3x3 convolutions; the stride is in the first or the second."""

    def __init__(self, inputs: int, outputs: int, stride: int, published: bool):
        super().__init__()
        first, second = (1, stride) if published else (stride, 1)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=first, padding=1, bias=published)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=second, padding=1, bias=published)
        self.changes = stride != 1 or inputs != outputs
        self.after_relu = self.changes and not published
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=published)
            if self.changes
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        active = relu(self.bn1(x))
        branch: Tensor = self.conv2(relu(self.bn2(self.conv1(active))))
        return branch + self.shortcut(active if self.after_relu else x)


class WideResNet(nn.Module):
    """A 3x3 stem of 16, three stages of (depth - 4) / 6 blocks, bn, relu, mean, linear.

    Images [B, channels, H, W] in [0, 1], not normalized; logits [B, classes]. With `published` it
    is the layout of the NuAT code: stride in the second convolution, biases in every convolution,
    last BatchNorm of momentum 0.9 (46,172,810 parameters at 34-10); else that of TRADES.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        depth: int = 34,
        width: int = 10,
        published: bool = False,
    ):
        super().__init__()
        check_sizes(classes=classes, channels=channels, depth=depth, width=width)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"the depth of a wide ResNet is 6 n + 4, such as 34, not {depth}")
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=published)
        widths = [16, 16 * width, 32 * width, 64 * width]
        blocks = []
        for stage in range(3):
            for place in range((depth - 4) // 6):
                inputs = widths[stage] if place == 0 else widths[stage + 1]
                stride = 2 if stage and place == 0 else 1
                blocks.append(WideBlock(inputs, widths[stage + 1], stride, published))
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(widths[-1], momentum=0.9 if published else 0.1)
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        x = relu(self.bn(self.blocks(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
