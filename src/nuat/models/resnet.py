"""ResNets (arXiv:1512.03385) and pre-activation ResNets (arXiv:1603.05027) with basic blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from nuat.models.validation import check_sizes


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), 3x3 convolutions.

    With `extra_relu` the branch passes a ReLU of its own before the addition, as in the code
    published with NuAT: the same parameters, another function.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, extra_relu: bool):
        super().__init__()
        self.conv1 = _conv3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))
        self.extra_relu = extra_relu

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        branch = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.extra_relu:
            branch = relu(branch)
        return relu(branch + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 for small images: a 3x3 stem, four stages of two basic blocks, mean, linear.

    Images [B, channels, H, W] in [0, 1], not normalized; logits [B, classes]. `width` 64 is the
    standard one (11,173,962 parameters for 10 classes). With `imagenet` the stem is the 7x7
    convolution of stride 2 and the max-pooling of the networks for 224x224.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 64,
        extra_relu: bool = False,
        imagenet: bool = False,
    ):
        super().__init__()
        check_sizes(classes=classes, channels=channels, width=width)
        size, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        widths = [width * 2**stage for stage in range(4)]
        for stage, (inputs, outputs) in enumerate(zip([width, *widths], widths, strict=False)):
            first = BasicBlock(inputs, outputs, 1 if stage == 0 else 2, extra_relu)
            second = BasicBlock(outputs, outputs, 1, extra_relu)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, second))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        x = self.pool(relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class PreActBlock(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + shortcut, the shortcut taken after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        active = relu(self.bn1(x))
        around = self.shortcut(active) if len(self.shortcut) else x
        branch: Tensor = self.conv2(relu(self.bn2(self.conv1(active))))
        return branch + around


class PreActResNet(nn.Module):
    """PreActResNet-18 for small images: a 3x3 stem, eight blocks, bn, relu, mean, linear."""

    def __init__(self, classes: int, channels: int = 3, width: int = 64):
        super().__init__()
        check_sizes(classes=classes, channels=channels, width=width)
        self.conv1 = _conv3(channels, width)
        widths = [width * 2**stage for stage in range(4)]
        blocks = []
        for stage, (inputs, outputs) in enumerate(zip([width, *widths], widths, strict=False)):
            blocks.append(PreActBlock(inputs, outputs, 1 if stage == 0 else 2))
            blocks.append(PreActBlock(outputs, outputs, 1))
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        x = relu(self.bn(self.blocks(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
