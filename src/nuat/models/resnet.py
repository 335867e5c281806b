"""ResNets (arXiv:1512.03385) with basic blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from nuat.errors import check_positive_int


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), 3x3 convolutions.

    With `extra_relu` a ReLU follows the branch before the addition, as in the code published with
    NuAT: the state dict is the same, the function is another one.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, extra_relu: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))
        self.extra_relu = extra_relu

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        branch = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.extra_relu:
            branch = relu(branch)
        return relu(branch + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 for small images: 3x3 convolution, four stages of two basic blocks, mean, head.

    Images [B, channels, H, W] in [0, 1], not normalized; logits [B, classes]. With the standard
    width 64 and 10 classes it has 11,173,962 parameters. `imagenet` replaces the first convolution
    by 7x7 with stride 2 and max-pooling, for images of 224x224. Source: arXiv:1512.03385.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 64,
        extra_relu: bool = False,
        imagenet: bool = False,
    ):
        super().__init__()
        check_positive_int("width", width)
        kernel, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(
            channels, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            first = BasicBlock(inputs, outputs, 1 if stage == 0 else 2, extra_relu)
            second = BasicBlock(outputs, outputs, 1, extra_relu)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, second))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
