"""The registered models."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from nuat.config.registry import Registry
from nuat.models.mnist import MNISTNet, TradesMNISTNet
from nuat.models.preact import PreActResNet, WideResNet
from nuat.models.resnet import ResNet
from nuat.models.small import SmallCNN

ModelFactory = Callable[..., nn.Module]

model_registry: Registry[ModelFactory] = Registry("model")
model_registry.add("small-cnn", SmallCNN)
model_registry.add("mnist-net", MNISTNet)
model_registry.add("mnist-net-trades", TradesMNISTNet)
model_registry.add("resnet18", ResNet)
model_registry.add("preact-resnet18", PreActResNet)
model_registry.add("wrn-34-10", WideResNet)


def list_models() -> list[str]:
    """Return the names of all registered models, in the order of registration.

    >>> "resnet18" in nuat.list_models()
    True
    """
    return list(model_registry)


def register_model(name: str) -> Callable[[ModelFactory], ModelFactory]:
    """Return a decorator that registers a class or function as a model.

    The factory receives `classes` and `channels` and its own settings: `@register_model("my-net")`
    makes `my-net(width=32)` a name for `build_model` and `--model`.

    Raises:
        InputError: the name is taken.

    >>> @nuat.register_model("linear")
    ... def linear(classes, channels, side=8):
    ...     layers = torch.nn.Flatten(), torch.nn.Linear(channels * side * side, classes)
    ...     return torch.nn.Sequential(*layers)
    >>> nuat.build_model("linear(side=4)", classes=3, channels=1)(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    return model_registry.register(name)


@model_registry.register("resnet18-nuat")
def _resnet18_nuat(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 as published with NuAT: an extra ReLU on the branch before each addition."""
    return ResNet(classes, channels, width, extra_relu=True)


@model_registry.register("resnet18-imagenet")
def _resnet18_imagenet(classes: int, channels: int, width: int = 64) -> ResNet:
    """ResNet-18 for 224x224: a 7x7 convolution of stride 2 and max-pooling come first."""
    return ResNet(classes, channels, width, imagenet=True)


@model_registry.register("wrn-34-10-nuat")
def _wrn_nuat(classes: int, channels: int, depth: int = 34, width: int = 10) -> WideResNet:
    """WideResNet as published with NuAT: stride in the second convolution, biases."""
    return WideResNet(classes, channels, depth, width, nuat_layout=True)


@model_registry.register("preact-resnet18-fbf")
def _preact_fbf(classes: int, channels: int, width: int = 64) -> PreActResNet:
    """PreActResNet-18 as published with FBF (fast_adversarial): shortcuts of x, not relu(bn(x))."""
    return PreActResNet(classes, channels, width, shortcut_from_x=True)
