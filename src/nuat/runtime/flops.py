"""Floating-point operations, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    flops = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = op(*args, **kwargs)
        if formula := flop_registry.get(op.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and matrix products in a piece of work."""
    with _Counter() as counter:
        work()
    return counter.flops
