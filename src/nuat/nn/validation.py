"""Checks of a network, its logits and its losses."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nuat.errors import InputError, NonFiniteError
from nuat.nn.freeze import frozen_eval


def check_loss(loss: Tensor) -> None:
    """Raise InputError unless the loss that a method yields is a scalar."""
    if loss.ndim:
        raise InputError(
            f"the method yields a loss of shape {list(loss.shape)}, not a scalar; "
            "does its loss or distance return one number per image?"
        )


def check_last_batch(
    model: nn.Module, x: Tensor, num_images: int, batch_size: int, ranks: int = 1
) -> None:
    """Raise InputError if an epoch ends with a batch of one image that BatchNorm cannot use.

    On several ranks, if the last batch has one image for some rank.

    BatchNorm can use one image where a layer sees more than one pixel, so the first of the images
    `x` [B, C, H, W] is passed through the network.
    """
    if (num_images % batch_size or batch_size) // ranks > 1:
        return
    with frozen_eval(model, training=True) as frozen_model, torch.no_grad():
        try:
            frozen_model(x[:1])
        except ValueError as error:
            raise InputError(
                f"{num_images} training images in batches of {batch_size} leave a last batch of "
                f"one image{' for a rank' if ranks > 1 else ''}, for which BatchNorm has no "
                f"statistics ({error}); choose another batch size, such as "
                f"--set batch_size={batch_size + 1}"
            ) from error


def check_network(model: nn.Module) -> None:
    """Raise InputError for a network whose weights are not there, or are not weights.

    These are networks with lazy layers that have not been called yet, networks built under
    `torch.inference_mode`, and TorchScript after `torch.jit.freeze`.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{name} has no shape yet, because it belongs to a lazy layer: call the network "
                "once on a batch of images first"
            )
        if tensor.is_inference():
            raise InputError(
                f"{name} was created under torch.inference_mode, so no gradient can pass through "
                "it: build or load the network outside of inference_mode"
            )
    if not all(hasattr(module, "training") for module in model.modules()):
        raise InputError(
            "the network is TorchScript after torch.jit.freeze, whose weights are constants: use "
            "the network from before the freezing"
        )


def check_trainable(model: nn.Module) -> None:
    """Raise InputError for TorchScript, and for a network without trainable weights."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InputError(
            "the network is TorchScript, of which training cannot see the BatchNorm layers: train "
            "the network from before torch.jit.script or torch.jit.trace; nuat evaluates both"
        )
    parameters = list(model.parameters())
    if not any(weight.requires_grad for weight in parameters):
        reason = "all its parameters are frozen" if parameters else "it has no parameters"
        raise InputError(
            f"there is nothing to train in the network: {reason}; call requires_grad_(True) on "
            "those to train"
        )


def check_logits(
    model: nn.Module,
    x: Tensor,
    classes: int | None = None,
    warn_of_softmax: bool = True,
    training: bool = False,
    some_finite: bool = False,
) -> int:
    """Check that a network returns finite logits [B, K] for images `x`, and return K.

    The network is called once, without gradients, on a copy of the images.

    Args:
        model: the network.
        x: images in [0, 1], [B, C, H, W].
        classes: the required number of logits; None accepts any.
        warn_of_softmax: whether to warn if the outputs look like the probabilities of a softmax.
        training: whether to call it in train mode, which may change buffers other than those of
            BatchNorm.
        some_finite: accept NaN and infinite logits, unless every image has one.

    Raises:
        InputError: the network does not accept the images, changes them in place, or returns
            anything else than logits.
        NonFiniteError: a logit is NaN or infinite; with `some_finite`, one of each image.
    """
    z = _forward(model, x, training)
    if not isinstance(z, Tensor):
        mode = " in train mode" if training else ""
        raise InputError(
            f"the network returns a {type(z).__name__}{mode}, not a tensor of logits [B, K]; "
            "wrap it so that it returns the logits alone"
        )
    if z.ndim != 2 or len(z) != len(x) or classes not in (None, z.shape[1]):
        raise InputError(
            f"the network returns {list(z.shape)} for {len(x)} images, "
            f"not logits [{len(x)}, {'K' if classes is None else classes}]"
        )
    is_finite = torch.isfinite(z).all(1)
    if not (is_finite.any() if some_finite else is_finite.all()):
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


def _forward(model: nn.Module, x: Tensor, training: bool) -> object:
    passed = x.clone()
    version = passed._version  # counts the in-place operations on the tensor and its views
    with frozen_eval(model, training) as frozen_model, torch.no_grad():
        try:
            z: object = frozen_model(passed)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the user's code may raise anything
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            raise InputError(
                f"the network does not take images {list(x.shape)}: {kind}{_first_line(error)}"
            ) from error
    if passed._version != version or not torch.equal(passed, x):
        raise InputError(
            "the network changes its input images in place, so that neither attacks nor losses "
            "could use them: let its forward begin with x = x.clone(), or use no in-place "
            "operation, such as x.sub_ or ReLU(inplace=True), on the images"
        )
    return z


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
