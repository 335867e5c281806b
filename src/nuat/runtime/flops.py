"""Counts of floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _FlopCounter(TorchDispatchMode):
    """Adds up torch's own formulas for the operations that run.

    torch.utils.flop_counter.FlopCounterMode uses the same formulas, but its module hooks fail in
    torch.autograd.grad with respect to an input, which every attack calls.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.flops: int = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = op(*args, **kwargs)
        if formula := flop_registry.get(op.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def count_flops(function: Callable[[], Any]) -> int:
    """Call `function` and return the floating-point operations of its convolutions and matmuls."""
    counter = _FlopCounter()
    with counter:
        function()
    return counter.flops
