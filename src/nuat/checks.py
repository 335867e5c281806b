"""What images, labels, logits and losses must be, before anything is done with them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from nuat.errors import InputError, NonFinite
from nuat.network import frozen


def check_loss(loss: Tensor) -> None:
    """Raise InputError unless what a method yields is a scalar."""
    if loss.ndim:
        raise InputError(
            f"the method yields a loss of shape {list(loss.shape)}, not a scalar; "
            "is its loss or distance one that gives a number for each image?"
        )


def check_images(x: Tensor) -> None:
    """Raise InputError unless `x` are images [B, C, H, W]: uint8, or floats in [0, 1]."""
    if x.ndim and len(x) == 0:
        raise InputError("there are no images: the data, or the part of it asked for, is empty")
    if x.ndim != 4 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise InputError(f"images are {x.dtype} of shape {list(x.shape)}, not floats [B, C, H, W]")
    if x.dtype == torch.uint8:
        return
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        likely = "divide by 255?" if low >= 0 and 1 < high <= 255 else "are they normalised?"
        raise InputError(f"images must lie in [0, 1], but run from {low:g} to {high:g}; {likely}")


def check_last_batch(f: nn.Module, x: Tensor, images: int, batch_size: int) -> None:
    """Raise InputError if an epoch ends in a single image that BatchNorm cannot be trained on.

    It can where a layer sees more than one pixel. `x` are images [B, C, H, W]; the first is tried.
    """
    if images % batch_size != 1 % batch_size:
        return
    with frozen(f, training=True) as g, torch.no_grad():
        try:
            g(x[:1])
        except ValueError as error:
            raise InputError(
                f"{images} training images in batches of {batch_size} leave a last batch of one, "
                f"from which a BatchNorm of this network has no statistics ({error}); "
                f"take another batch size, such as --set batch_size={batch_size + 1}"
            ) from error


def check_labels(y: Tensor, images: int, classes: int) -> None:
    """Raise InputError unless `y` is one integer from 0 to classes - 1 for each image."""
    if y.ndim != 1 or len(y) != images or y.is_floating_point() or y.dtype == torch.bool:
        raise InputError(f"labels are {y.dtype} of shape {list(y.shape)}, not integers [{images}]")
    if not images:
        raise InputError("there are no labels, as there are no images")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        likely = "; do they count from 1?" if low >= 1 and high == classes else ""
        raise InputError(
            f"labels run from {low} to {high}, but with {classes} classes must be "
            f"0 to {classes - 1}{likely}"
        )


def check_logits(f: nn.Module, x: Tensor, classes: int | None = None) -> int:
    """The number of classes K of a network that gives finite logits [B, K] for images `x`.

    `f` is called once on `x`, frozen and without gradient. Raises InputError if it returns anything
    else, or another K than `classes`; NonFinite for NaN; warns if it seems to end in a softmax.
    """
    with frozen(f) as g, torch.no_grad():
        try:
            z = g(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"the network does not take images {list(x.shape)}: {error}"
            ) from error
    if not isinstance(z, Tensor):
        raise InputError(
            f"the network returns a {type(z).__name__}, not a tensor of logits [B, K]; "
            "wrap it so that it returns the logits alone"
        )
    wanted = [len(x), "K" if classes is None else classes]
    if z.ndim != 2 or len(z) != len(x) or classes not in (None, z.shape[1]):
        raise InputError(
            f"the network returns {list(z.shape)} for {len(x)} images, "
            f"not logits [{wanted[0]}, {wanted[1]}]"
        )
    if not torch.isfinite(z).all():
        raise NonFinite("the network returns NaN or infinite logits")
    if bool((z >= 0).all()) and torch.allclose(z.sum(1), torch.ones_like(z[:, 0]), atol=1e-5):
        warnings.warn(
            "the network's outputs are non-negative and sum to 1: it seems to end in a softmax. "
            "Attacks and losses want logits; remove it, or robustness will be overstated",
            stacklevel=2,
        )
    return z.shape[1]
