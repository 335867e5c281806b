"""Checks of a network, its logits and its losses."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from nuat.errors import InputError, NonFiniteError
from nuat.nn.freeze import frozen_eval


def check_loss(loss: Tensor) -> None:
    """Raise InputError unless the loss that a method yields is a scalar."""
    if loss.ndim:
        raise InputError(
            f"the method yields a loss of shape {list(loss.shape)}, not a scalar; "
            "does its loss or distance return one number per image?"
        )


def check_last_batch(model: nn.Module, x: Tensor, num_images: int, batch_size: int) -> None:
    """Raise InputError if an epoch ends with a batch of one image that BatchNorm cannot use.

    BatchNorm can use one image where a layer sees more than one pixel, so the first of the images
    `x` [B, C, H, W] is passed through the network.
    """
    if num_images % batch_size != 1 % batch_size:
        return
    with frozen_eval(model, training=True) as frozen_model, torch.no_grad():
        try:
            frozen_model(x[:1])
        except ValueError as error:
            raise InputError(
                f"{num_images} training images in batches of {batch_size} leave a last batch of "
                f"one image, for which BatchNorm has no statistics ({error}); "
                f"choose another batch size, such as --set batch_size={batch_size + 1}"
            ) from error


def check_logits(
    model: nn.Module, x: Tensor, classes: int | None = None, warn_of_softmax: bool = True
) -> int:
    """Check that a network returns finite logits [B, K] for images `x`, and return K.

    The network is called once, in eval mode and without gradients.

    Args:
        model: the network.
        x: images in [0, 1], [B, C, H, W].
        classes: the required number of logits; None accepts any.
        warn_of_softmax: whether to warn if the outputs look like the probabilities of a softmax.

    Raises:
        InputError: the network does not accept the images, or returns anything else than logits.
        NonFiniteError: a logit is NaN or infinite.
    """
    z = _forward(model, x)
    if not isinstance(z, Tensor):
        raise InputError(
            f"the network returns a {type(z).__name__}, not a tensor of logits [B, K]; "
            "wrap it so that it returns the logits alone"
        )
    if z.ndim != 2 or len(z) != len(x) or classes not in (None, z.shape[1]):
        raise InputError(
            f"the network returns {list(z.shape)} for {len(x)} images, "
            f"not logits [{len(x)}, {'K' if classes is None else classes}]"
        )
    if not torch.isfinite(z).all():
        raise NonFiniteError("the network returns NaN or infinite logits")
    if warn_of_softmax and looks_like_probabilities(z):
        warnings.warn(
            "the network's outputs are non-negative and sum to 1: it seems to end in a softmax. "
            "Attacks and losses need logits; remove the softmax, or robustness is overstated",
            stacklevel=2,
        )
    return z.shape[1]


def looks_like_probabilities(z: Tensor) -> bool:
    """Return whether outputs [B, K] are non-negative and sum to 1, like those of a softmax."""
    return bool((z >= 0).all()) and torch.allclose(z.sum(1), torch.ones_like(z[:, 0]), atol=1e-5)


def _forward(model: nn.Module, x: Tensor) -> object:
    with frozen_eval(model) as frozen_model, torch.no_grad():
        try:
            return frozen_model(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"the network does not take images {list(x.shape)}: {error}"
            ) from error
