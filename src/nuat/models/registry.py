"""The table of networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from nuat.config.registry import Registry
from nuat.models.mnist import MNISTNet, TradesMNISTNet
from nuat.models.resnet import PreActResNet, ResNet
from nuat.models.small import SmallCNN
from nuat.models.wide_resnet import WideResNet

model_registry: Registry[Callable[..., nn.Module]] = Registry("model")
model_registry.add("small-cnn", SmallCNN)
model_registry.add("mnist-net", MNISTNet)
model_registry.add("mnist-net-trades", TradesMNISTNet)
model_registry.add("resnet18", ResNet)
model_registry.add("preact-resnet18", PreActResNet)
model_registry.add("wrn-34-10", WideResNet)


def list_models() -> list[str]:
    """The names of all models, in the order of registration."""
    return list(model_registry)


def register_model(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register what is decorated as a model of this name: `@nuat.register_model("mine")`.

    Raises:
        InputError: the name is taken.
    """
    return model_registry.register(name)


@model_registry.register("resnet18-nuat")
def _resnet18_nuat(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 as published with NuAT: an extra ReLU on the branch before each addition."""
    return ResNet(classes, channels, width, extra_relu=True)


@model_registry.register("resnet18-imagenet")
def _resnet18_imagenet(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 for 224x224: a 7x7 stem of stride 2 and max-pooling."""
    return ResNet(classes, channels, width, imagenet=True)


@model_registry.register("wrn-34-10-nuat")
def _wrn_nuat(classes: int, channels: int, depth: int = 34, width: int = 10) -> WideResNet:
    """WideResNet as published with NuAT: stride in the second convolution, biases."""
    return WideResNet(classes, channels, depth, width, published=True)
