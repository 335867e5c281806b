"""BatchNorm's running statistics: leave them alone, or add once more what a pass added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


@contextmanager
def freeze_bn_stats(f: nn.Module) -> Iterator[None]:
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


class BatchNormUpdate:
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
def record_bn_update(f: nn.Module) -> Iterator[BatchNormUpdate]:
    """Record what a pass adds to the statistics.

    `with recorded(f) as clean: z = f(x)`, and `clean.replay()` after backward.
    """
    record = BatchNormUpdate(f)
    try:
        yield record
    finally:
        record.stop()
    record.close()
