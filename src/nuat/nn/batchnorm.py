"""BatchNorm's running statistics: leave them unchanged, or apply the update of a pass again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


@contextmanager
def freeze_bn_stats(model: nn.Module) -> Iterator[None]:
    """Forward passes in train mode do not update BatchNorm's running statistics."""
    layers = [m for m in model.modules() if isinstance(m, BatchNorm) and m.training]
    layers = [m for m in layers if m.track_running_stats]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


_usual_calls: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How often the last pass that was not compiled called a layer."""


class BatchNormUpdate:
    """The update that one forward pass made to BatchNorm's running statistics.

    Let r be the statistics before the pass and r' those after it. The pass computed  r' = k r + c,
    with k from the momentum. `apply_again` sets  r <- k r + c,  as a second, identical forward pass
    in train mode would: it replaces that pass, which has no other effect. It waits for the device
    only if a layer has momentum None. A compiled model is taken to call each layer as often as in
    its last pass that was not compiled.
    """

    def __init__(self, model: nn.Module):
        """Copy the statistics before the pass, and start to count the calls of each layer."""
        candidates = (module for module in model.modules() if isinstance(module, BatchNorm))
        # Any: torch annotates the statistics, which these layers have, as optional
        self.layers: list[Any] = [
            m for m in candidates if m.training and m.running_mean is not None
        ]
        self.calls = dict.fromkeys(self.layers, 0)
        self.is_compiled = any(hasattr(m, "_orig_mod") for m in model.modules())
        # a product with 1 copies all of them in one launch; there is no _foreach_clone
        self.before = list(torch._foreach_mul(self._running_stats(), 1)) if self.layers else []
        self.added: list[Tensor] = []
        self.hooks = []
        if self.is_compiled:
            # compiled code would keep the hooks of the pass that it was compiled in
            self.calls = {layer: _usual_calls.get(layer, 1) for layer in self.layers}
        else:
            self.hooks = [layer.register_forward_hook(self._count) for layer in self.layers]

    def remove_hooks(self) -> None:
        """Stop counting calls."""
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def finish(self) -> None:
        """Compute what the pass added."""
        if not self.layers:
            return
        if not self.is_compiled:
            _usual_calls.update(self.calls)
        decays, weights = self._factors(ahead=False)
        decayed = torch._foreach_mul(self.before, decays)
        difference = torch._foreach_sub(self._running_stats(), decayed)
        self.added = list(torch._foreach_mul(difference, weights))

    @torch.no_grad()
    def apply_again(self) -> None:
        """Apply the update once more, before or after the backward pass."""
        if not self.layers:
            return
        decays, weights = self._factors(ahead=True)
        # Autograd saved the statistics in the pass and refuses tensors that were modified since. It
        # does not read them in train mode, and it does not see what happens to their `.data`.
        running = [statistics.data for statistics in self._running_stats()]
        torch._foreach_mul_(running, decays)
        torch._foreach_add_(running, torch._foreach_div(self.added, weights))
        counters = [layer.num_batches_tracked for layer in self.layers]
        torch._foreach_add_(counters, list(self.calls.values()))

    def _count(self, layer: BatchNorm, *_: object) -> None:
        self.calls[layer] += layer.training and layer.track_running_stats

    def _running_stats(self) -> list[Tensor]:
        return [r for layer in self.layers for r in (layer.running_mean, layer.running_var)]

    def _factors(self, ahead: bool) -> tuple[list[float], list[float]]:
        """Return k and the weight of c for every tensor of `_running_stats`.

        They belong to the recorded pass, or with `ahead` to one more pass from now.
        """
        factors = [_decay_and_weight(layer, n, ahead) for layer, n in self.calls.items()]
        # each layer has two tensors, the running mean and the running variance
        repeated = [factor for factor in factors for _ in range(2)]
        return [decay for decay, _ in repeated], [weight for _, weight in repeated]


def _decay_and_weight(layer: Any, calls: int, ahead: bool) -> tuple[float, float]:
    if layer.momentum is not None:
        return (1 - layer.momentum) ** calls, 1.0
    # momentum None: the statistics are the plain mean over all batches so far
    batches = int(layer.num_batches_tracked) + calls * ahead
    return (batches - calls) / max(batches, 1), float(max(batches, 1))


@contextmanager
def record_bn_update(model: nn.Module) -> Iterator[BatchNormUpdate]:
    """Record the update that a forward pass makes to BatchNorm's running statistics.

    with record_bn_update(model) as bn_update:
        z = model(x)
    loss(z).backward()
    bn_update.apply_again()
    """
    update = BatchNormUpdate(model)
    try:
        yield update
    finally:
        update.remove_hooks()
    update.finish()
