"""The table of networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from nuat.config.registry import Registry
from nuat.models.mnist import MNISTNet, TradesMNISTNet
from nuat.models.resnet import PreActResNet, ResNet
from nuat.models.small import SmallCNN
from nuat.models.wide_resnet import WideResNet

models: Registry[Callable[..., nn.Module]] = Registry("model")
models.register("small-cnn", SmallCNN)
models.register("mnist-net", MNISTNet)
models.register("mnist-net-trades", TradesMNISTNet)
models.register("resnet18", ResNet)
models.register("preact-resnet18", PreActResNet)
models.register("wrn-34-10", WideResNet)


@models.named("resnet18-nuat")
def _resnet18_nuat(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 as published with NuAT: an extra ReLU on the branch before each addition."""
    return ResNet(classes, channels, width, extra_relu=True)


@models.named("resnet18-imagenet")
def _resnet18_imagenet(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 for 224x224: a 7x7 stem of stride 2 and max-pooling."""
    return ResNet(classes, channels, width, imagenet=True)


@models.named("wrn-34-10-nuat")
def _wrn_nuat(classes: int, channels: int, depth: int = 34, width: int = 10) -> WideResNet:
    """WideResNet as published with NuAT: stride in the second convolution, biases."""
    return WideResNet(classes, channels, depth, width, published=True)
