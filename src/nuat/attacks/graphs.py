"""The iterates of an attack as CUDA graphs.

At about 5 microseconds a launch, an iterate of a small network or of few images is bound by the
host. What an attack does between two iterates is therefore captured once per number of rows, and
replayed with one launch, in all runs of the attack. Everything else stays as it is: the starts, the
looks for misclassified images, the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nuat.runtime.cuda_graphs import Work, capture_cuda_graph

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
class CapturedWork:
    """The replay of captured work, and the passes through the network that it stands for."""

    replay: Work
    forwards: int
    backwards: int


@dataclass
class GraphSet:
    """The graphs of an attack for one number of rows.

    Attributes:
        buffers: for each holder, the tensors that the graphs read and write, by attribute.
        warm: the keys of work that has run once.
        graphs: captured work by key.
        compared: how many graphs with a network had been captured at the last comparison.
    """

    buffers: list[dict[str, Tensor]]
    warm: set[Hashable] = field(default_factory=set)
    graphs: dict[Hashable, CapturedWork] = field(default_factory=dict)
    compared: int = 0


@dataclass
class GraphCapture:
    """Whether to capture iterates, and how; shared by the runs of an evaluation.

    Attributes:
        capture: captures work and returns its replay.
        enabled: whether to capture; False once a capture has failed.
        notes: why a capture has failed.
        owner: the attack and the network whose graphs these are.
        sets: the graphs by the shape and the dtype of the images.
    """

    capture: Callable[[Work], Work] = capture_cuda_graph
    enabled: bool = True
    notes: list[str] = field(default_factory=list)
    owner: tuple[object, ...] = ()
    sets: dict[Hashable, GraphSet] = field(default_factory=dict)

    def give_up(self, reason: str) -> None:
        """Capture nothing from now on, and note why."""
        self.clear()
        self.enabled = False
        self.notes.append(f"the attacks run without CUDA graphs: {reason}")

    def clear(self) -> None:
        """Free all graphs."""
        self.owner = ()
        self.sets.clear()

    def accepts(self, attack: object, model: nn.Module) -> bool:
        """Whether to capture this attack on this network; frees the graphs of any other."""
        if not self.enabled:
            return False
        if any(map(_has_hooks, model.modules())):
            self.give_up("the network has hooks")  # which a replay would not call
            return False
        if self.owner and not (self.owner[0] is attack and self.owner[1] is model):
            self.clear()
        self.owner = attack, model
        return True


class IterateGraphs:
    """The CUDA graphs of one run of an attack.

    The tensors that a run keeps from one iterate to the next are attributes of its `holders`.
    Graphs read and write them at fixed addresses, so each has a buffer, and captured work ends by
    copying into the buffers what it has assigned.
    """

    def __init__(self, settings: GraphCapture, counter: Counter, holders: Sequence[object]):
        """Capture into the tensors of `holders`; the first holder is the state of the attack."""
        self.settings, self.counter, self.holders = settings, counter, holders

    def run(self, key: Hashable, work: Work) -> None:
        """Do `work`, which assigns new tensors to the holders' attributes.

        Args:
            key: every value other than these tensors that the work depends on.
            work: runs in Python the first time with this key, and is captured the second time.
        """
        graphs = self._set()
        if not self.settings.enabled:
            work()
        elif key not in graphs.warm:
            graphs.warm.add(key)
            self._run_first(work)
        elif key in graphs.graphs or self._capture(graphs, key, work):
            self._replay(graphs, key)
        else:
            work()

    def compare(self, z: Tensor | None, recompute: Callable[[], Tensor]) -> None:
        """Compare logits that graphs have computed with those of the network, once per capture.

        Raises:
            GraphMismatch: they differ.
        """
        graphs = self._set()
        networks = sum(captured.forwards > 0 for captured in graphs.graphs.values())
        if networks == graphs.compared or z is None:
            return
        graphs.compared, expected = networks, recompute().to(z.dtype)
        largest = expected.masked_fill(~expected.isfinite(), 0).abs().max()
        if not torch.allclose(z, expected, ROUNDING, ROUNDING * float(largest), equal_nan=True):
            self.settings.give_up("a captured network returns other logits")
            raise GraphMismatch

    def _set(self) -> GraphSet:
        x: Tensor = self._state.x
        empty = GraphSet([{} for _ in self.holders])
        return self.settings.sets.setdefault((x.shape, x.dtype), empty)

    @property
    def _state(self) -> Any:
        return self.holders[0]

    def _run_first(self, work: Work) -> None:
        """Run in Python, which also initializes what a capture must not."""
        before = _random_state(self._state.x.device)
        work()
        if not torch.equal(before, _random_state(self._state.x.device)):
            self.settings.give_up("the network draws random numbers")

    def _capture(self, graphs: GraphSet, key: Hashable, work: Work) -> bool:
        self._fill_buffers(graphs)
        forwards, backwards = self.counter.forwards, self.counter.backwards

        def captured() -> None:
            work()
            self._fill_buffers(graphs)

        try:
            replay = self.settings.capture(captured)
            passes = self.counter.forwards - forwards, self.counter.backwards - backwards
            graphs.graphs[key] = CapturedWork(replay, *passes)
        except Exception as error:  # the work itself has run before
            self.settings.give_up((str(error) or type(error).__name__).splitlines()[0])
        self.counter.forwards, self.counter.backwards = forwards, backwards
        self.counter.forget()
        self._use_buffers(graphs)
        return key in graphs.graphs

    def _replay(self, graphs: GraphSet, key: Hashable) -> None:
        self._fill_buffers(graphs)
        captured = graphs.graphs[key]
        captured.replay()
        self.counter.forwards += captured.forwards
        self.counter.backwards += captured.backwards

    def _fill_buffers(self, graphs: GraphSet) -> None:
        """Copy every tensor that is not in its buffer into it, and assign the buffers."""
        in_use = {id(buffer) for buffers in graphs.buffers for buffer in buffers.values()}
        moved: list[tuple[Tensor, Tensor]] = []
        for holder, buffers in zip(self.holders, graphs.buffers, strict=True):
            for name, value in _tensors(holder).items():
                if name not in buffers:
                    buffers[name] = value.clone()
                elif value is not buffers[name]:
                    # the value may be another buffer, such as x_prev = x_adv: copy it first
                    moved.append((buffers[name], value.clone() if id(value) in in_use else value))
        for buffer, value in moved:
            buffer.copy_(value)
        self._use_buffers(graphs)

    def _use_buffers(self, graphs: GraphSet) -> None:
        for holder, buffers in zip(self.holders, graphs.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(holder, name, buffer)


def padded_rows(images: int) -> int:
    """The rows of a captured batch: at least 8, and with four binary digits that are not 0.

    So a few sets of graphs serve all batches, and at most an eighth of the rows is wasted.
    """
    unit = 1 << max((images - 1).bit_length() - 4, 0)
    return max(-(-images // unit) * unit, 8)


def _tensors(holder: object) -> dict[str, Tensor]:
    values = vars(holder).items()
    return {k: v for k, v in values if isinstance(v, Tensor) and not k.startswith("_")}


def _random_state(device: torch.device) -> Tensor:
    """The state of the GPU's generator, which lives on the host."""
    return torch.cuda.get_rng_state(device)


def _has_hooks(module: nn.Module) -> bool:
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )
