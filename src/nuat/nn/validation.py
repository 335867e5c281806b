"""What a network, its logits and its losses must be."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from nuat.errors import InputError, NonFiniteError
from nuat.nn.freeze import frozen_eval


def check_loss(loss: Tensor) -> None:
    """Raise InputError unless what a method yields is a scalar."""
    if loss.ndim:
        raise InputError(
            f"the method yields a loss of shape {list(loss.shape)}, not a scalar; "
            "is its loss or distance one that gives a number for each image?"
        )


def check_last_batch(f: nn.Module, x: Tensor, images: int, batch_size: int) -> None:
    """Raise InputError if an epoch ends in a single image that BatchNorm cannot be trained on.

    It can where a layer sees more than one pixel. `x` are images [B, C, H, W]; the first is tried.
    """
    if images % batch_size != 1 % batch_size:
        return
    with frozen_eval(f, training=True) as g, torch.no_grad():
        try:
            g(x[:1])
        except ValueError as error:
            raise InputError(
                f"{images} training images in batches of {batch_size} leave a last batch of one, "
                f"from which a BatchNorm of this network has no statistics ({error}); "
                f"take another batch size, such as --set batch_size={batch_size + 1}"
            ) from error


def check_logits(
    f: nn.Module, x: Tensor, classes: int | None = None, warn_of_softmax: bool = True
) -> int:
    """The number of classes K of a network that gives finite logits [B, K] for images `x`.

    `f` is called once on `x`, frozen and without gradient. Raises InputError if it returns anything
    else, or another K than `classes`; NonFiniteError for NaN; warns if it seems to end in a softmax,
    unless the caller reports that itself.
    """
    with frozen_eval(f) as g, torch.no_grad():
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
        raise NonFiniteError("the network returns NaN or infinite logits")
    if warn_of_softmax and looks_like_probabilities(z):
        warnings.warn(
            "the network's outputs are non-negative and sum to 1: it seems to end in a softmax. "
            "Attacks and losses want logits; remove it, or robustness will be overstated",
            stacklevel=2,
        )
    return z.shape[1]


def looks_like_probabilities(z: Tensor) -> bool:
    """Return whether outputs [B, K] are non-negative and sum to 1, like those of a softmax."""
    return bool((z >= 0).all()) and torch.allclose(z.sum(1), torch.ones_like(z[:, 0]), atol=1e-5)
