"""The iterates of an attack as CUDA graphs.

At about 5 microseconds a launch, an iterate of a small network or of few images is bound by the
host. What an attack does between two iterates is therefore captured once per run and number of
rows, and replayed with one launch. Everything else stays as it is: the starts, the looks for
misclassified images, the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nuat.runtime.cuda_graphs import Work, capture_cuda_graph

MIN_ACTIVE = 7 / 8
"""Broken images stay in a captured batch until less than this fraction of it is left."""

ROUNDING = 1e-3
"""The difference allowed between replayed and recomputed logits, relative to the largest."""


class Counter(Protocol):
    """The network under attack, which counts its passes; see `PassCounter`."""

    forwards: int
    backwards: int

    def forget(self) -> None: ...


class GraphMismatch(Exception):
    """A replayed graph computes something other than the work that it was captured from."""


@dataclass
class GraphCapture:
    """Whether to capture iterates, and how; shared by the runs of an evaluation.

    Attributes:
        capture: captures work and returns its replay.
        enabled: whether to capture; False once a capture has failed.
        notes: why a capture has failed.
    """

    capture: Callable[[Work], Work] = capture_cuda_graph
    enabled: bool = True
    notes: list[str] = field(default_factory=list)

    def give_up(self, reason: str) -> None:
        """Capture nothing from now on, and note why."""
        self.enabled = False
        self.notes.append(f"the attacks run without CUDA graphs: {reason}")

    def accepts(self, model: nn.Module) -> bool:
        """Whether to capture passes through this network."""
        if self.enabled and any(map(_has_hooks, model.modules())):
            # a replay calls no hooks
            self.give_up("the network has hooks")
        return self.enabled


@dataclass
class CapturedWork:
    """The replay of captured work, and the passes through the network that it stands for."""

    replay: Work
    forwards: int
    backwards: int


class IterateGraphs:
    """The CUDA graphs of one run of an attack.

    The tensors that a run keeps from one iterate to the next are attributes of its `holders`.
    Graphs read and write them at fixed addresses, so each has a buffer, and captured work ends by
    copying into the buffers what it has assigned. The graphs of another number of rows are new.
    """

    def __init__(self, settings: GraphCapture, counter: Counter, holders: Sequence[object]):
        """Capture into the tensors of `holders`; the first holder has the rows of the run."""
        self.settings, self.counter, self.holders = settings, counter, holders
        self.clear()

    def clear(self) -> None:
        """Free all graphs."""
        self.rows = -1
        self.compared = 0
        self.warm = set[Hashable]()
        self.graphs = dict[Hashable, CapturedWork]()
        self.buffers: list[dict[str, Tensor]] = [{} for _ in self.holders]
        self.counter.forget()

    def run(self, key: Hashable, work: Work) -> None:
        """Do `work`, which assigns new tensors to the holders' attributes.

        Args:
            key: every value other than these tensors that the work depends on.
            work: runs in Python the first time with this key, and is captured the second time.
        """
        rows = len(self.holders[0])  # type: ignore[arg-type]  # an AttackState
        if rows != self.rows:
            self.clear()
            self.rows = rows
        if not self.settings.enabled:
            work()
        elif key not in self.warm:
            self.warm.add(key)
            self._run_first(work)
        elif key in self.graphs or self._capture(key, work):
            self._replay(self.graphs[key])
        else:
            work()

    def compare(self, z: Tensor | None, recompute: Callable[[], Tensor]) -> None:
        """Compare logits that graphs have computed with those of the network, once per capture.

        Raises:
            GraphMismatch: they differ.
        """
        networks = sum(captured.forwards > 0 for captured in self.graphs.values())
        if networks == self.compared or z is None:
            return
        self.compared, expected = networks, recompute().to(z.dtype)
        largest = expected.masked_fill(~expected.isfinite(), 0).abs().max()
        if not torch.allclose(z, expected, ROUNDING, ROUNDING * float(largest), equal_nan=True):
            self.settings.give_up("a captured network returns other logits")
            raise GraphMismatch

    def _run_first(self, work: Work) -> None:
        """Run in Python, which also initializes what a capture must not."""
        before = _random_state(self.holders[0])
        work()
        if not torch.equal(before, _random_state(self.holders[0])):
            self.settings.give_up("the network draws random numbers")

    def _capture(self, key: Hashable, work: Work) -> bool:
        self._fill_buffers()
        forwards, backwards = self.counter.forwards, self.counter.backwards

        def captured() -> None:
            work()
            self._fill_buffers()

        try:
            replay = self.settings.capture(captured)
            passes = self.counter.forwards - forwards, self.counter.backwards - backwards
            self.graphs[key] = CapturedWork(replay, *passes)
        except Exception as error:  # the work itself has run before
            self.settings.give_up((str(error) or type(error).__name__).splitlines()[0])
        self.counter.forwards, self.counter.backwards = forwards, backwards
        self.counter.forget()
        self._use_buffers()
        return key in self.graphs

    def _replay(self, captured: CapturedWork) -> None:
        self._fill_buffers()
        captured.replay()
        self.counter.forwards += captured.forwards
        self.counter.backwards += captured.backwards

    def _fill_buffers(self) -> None:
        """Copy every tensor that is not in its buffer into it, and assign the buffers."""
        in_use = {id(buffer) for buffers in self.buffers for buffer in buffers.values()}
        moved: list[tuple[Tensor, Tensor]] = []
        for holder, buffers in zip(self.holders, self.buffers, strict=True):
            for name, value in _tensors(holder).items():
                if name not in buffers:
                    buffers[name] = value.clone()
                elif value is not buffers[name]:
                    # the value may be another buffer, such as x_prev = x_adv: copy it first
                    moved.append((buffers[name], value.clone() if id(value) in in_use else value))
        for buffer, value in moved:
            buffer.copy_(value)
        self._use_buffers()

    def _use_buffers(self) -> None:
        for holder, buffers in zip(self.holders, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(holder, name, buffer)


def _tensors(holder: object) -> dict[str, Tensor]:
    values = vars(holder).items()
    return {k: v for k, v in values if isinstance(v, Tensor) and not k.startswith("_")}


def _random_state(holder: Any) -> Tensor:
    """The state of the GPU's generator, which lives on the host."""
    return torch.cuda.get_rng_state(holder.x.device)


def _has_hooks(module: nn.Module) -> bool:
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )
