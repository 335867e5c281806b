"""Around a network: freeze it, look at what it returns, remember its BatchNorm statistics."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nuat.errors import InputError, NonFinite


def bare(f: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return f.module if isinstance(f, DistributedDataParallel) else f


def device_of(f: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; cpu for a network that has none."""
    tensors = (*f.parameters(), *f.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def device_named(name: torch.device | str | None) -> torch.device:
    """The device of this name; without one, cuda if there is one, or else cpu.

    Raises InputError if there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(name, torch.device):
        return name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}: write cuda, cuda:1 or cpu") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"there is no device {str(name)!r} here: {first_line}") from None
    return device


def fingerprint(f: nn.Module) -> str:
    """A hash of the network's weights and buffers: which network a result is about."""
    return digest(bare(f).state_dict())


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def frozen(f: nn.Module, training: bool = False) -> Iterator[nn.Module]:
    """The network as an attack sees it: bare, in eval mode, its weights asking for no gradient.

    With `training` it is in train mode: BatchNorm uses the statistics of the batch, and still
    leaves its running ones alone. Modes and `requires_grad` come back as they were, module by
    module, also after an error.
    """
    g = bare(f)
    modes = [(module, module.training) for module in g.modules()]
    live = [weight for weight in g.parameters() if weight.requires_grad]
    try:
        g.train(training)
        for weight in live:
            weight.requires_grad_(False)
        with statistics_untouched(g):
            yield g
    finally:
        for weight in live:
            weight.requires_grad_(True)
        for module, was_training in modes:
            module.training = was_training


LEAST = 8
"""Images in the smallest batch that an evaluation gives to a network."""


def at_least(g: nn.Module, x: Tensor, least: int = LEAST) -> Tensor:
    """g(x), a short batch filled up with copies of its first image that are left out again.

    Below about five images the linear-algebra libraries take other roads, which round otherwise;
    above, an image's logits are the same bits in whatever batch it comes.
    """
    short = least - len(x)
    if short <= 0 or not len(x):
        return g(x)
    return g(torch.cat([x, x[:1].detach().expand(short, *x.shape[1:])]))[: len(x)]


@contextmanager
def statistics_untouched(f: nn.Module) -> Iterator[None]:
    """Passes in train mode leave BatchNorm's running statistics as they are."""
    tracking = [m for m in f.modules() if isinstance(m, BatchNorm) and m.training]
    tracking = [m for m in tracking if m.track_running_stats]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


class BatchNormRecord:
    """What one forward pass added to the running statistics of a network, so it can be added again.

    With r the statistics before, r' after, and k the share of r that is left in r', the pass added
    c = r' - k r; `replay` does r <- k r + c. It stands for a second, identical forward pass in
    train mode, which costs F and would change nothing else. Nothing waits for a device, unless a
    layer has momentum None.
    """

    def __init__(self, f: nn.Module):
        """Take note of the statistics before the pass, and count the calls of each layer."""
        candidates = (module for module in f.modules() if isinstance(module, BatchNorm))
        self.layers = [m for m in candidates if m.training and m.running_mean is not None]
        self.calls = dict.fromkeys(self.layers, 0)
        self.before = [r.clone() for r in self._running()]
        self.added: list[Tensor] = []
        self.hooks = [layer.register_forward_hook(self._count) for layer in self.layers]

    def stop(self) -> None:
        """Count no more."""
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def close(self) -> None:
        """Take note of what the pass added."""
        if not self.layers:
            return
        shares, weights = self._shares(ahead=False)
        kept = torch._foreach_mul(self.before, shares)
        self.added = list(torch._foreach_mul(torch._foreach_sub(self._running(), kept), weights))

    @torch.no_grad()
    def replay(self) -> None:
        """Add it once more. Call it after backward: the graph of a pass holds the statistics."""
        if not self.layers:
            return
        shares, weights = self._shares(ahead=True)
        running = self._running()
        torch._foreach_mul_(running, shares)
        torch._foreach_add_(running, torch._foreach_div(self.added, weights))
        counters = [layer.num_batches_tracked for layer in self.layers]
        torch._foreach_add_(counters, list(self.calls.values()))

    def _count(self, layer: BatchNorm, *_: object) -> None:
        self.calls[layer] += layer.training and layer.track_running_stats

    def _running(self) -> list[Tensor]:
        return [r for layer in self.layers for r in (layer.running_mean, layer.running_var)]

    def _shares(self, ahead: bool) -> tuple[list[float], list[float]]:
        """For each of `_running`: k of the pass, the last one or one to come; the weight of c."""
        both = [_share(layer, calls, ahead) for layer, calls in self.calls.items()]
        return [k for k, _ in both for _ in "mv"], [w for _, w in both for _ in "mv"]


def _share(layer: BatchNorm, calls: int, ahead: bool) -> tuple[float, float]:
    if layer.momentum is not None:
        return (1 - layer.momentum) ** calls, 1.0
    then = int(layer.num_batches_tracked) + calls * ahead
    return (then - calls) / max(then, 1), float(max(then, 1))


@contextmanager
def recorded(f: nn.Module) -> Iterator[BatchNormRecord]:
    """Record what a pass adds to the statistics.

    `with recorded(f) as clean: z = f(x)`, and `clean.replay()` after backward.
    """
    record = BatchNormRecord(f)
    try:
        yield record
    finally:
        record.stop()
    record.close()


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
