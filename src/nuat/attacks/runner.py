"""One run of an attack on one batch, and what became of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from nuat.attacks.criteria import evaluate_points
from nuat.attacks.state import AttackState
from nuat.losses import margin
from nuat.nn.freeze import forward_padded
from nuat.rng import Noise
from nuat.threat_models import Ball

SuccessAt = Literal["last", "any"]
LOOK = 10
"""Between two looks at what has been found (and one synchronisation each): so many iterates."""


class AttackProtocol(Protocol):
    """What a trial asks of an attack; see `Attack`."""

    ball: Ball
    restarts: int
    success_at: SuccessAt
    snapshots: tuple[int, ...]
    targets: int

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run, point by point."""

    def inside(self, b: AttackState) -> Tensor | None:
        """Which points are in the ball; None: all."""


@dataclass
class AttackResult:
    """What a run did to each of B images.

    Attributes:
        x_adv: the point it fell to, or the last one, [B, C, H, W].
        fallen: whether it fell, [B] bool; verified by the network itself.
        iterate: which point that was, the start being 0, [B].
        forwards, backwards: passes it had taken part in by then, [B].
        lead: the lead of the best other class over the true one there, [B], by the network itself
            where it fell; otherwise the largest seen in the search (NaN if it saw none).
        snapshots: for each snapshot, whether the image stood there, [B] bool.
    """

    x_adv: Tensor
    fallen: Tensor
    iterate: Tensor
    forwards: Tensor
    backwards: Tensor
    lead: Tensor
    snapshots: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(x: Tensor) -> AttackResult:
        """Nothing has happened yet."""
        none = torch.zeros(len(x), dtype=torch.long, device=x.device)
        lead = torch.full((len(x),), torch.nan, device=x.device)
        return AttackResult(x.clone(), none.bool(), none, none.clone(), none.clone(), lead)

    def note(self, places: Tensor, fallen: bool, **values: Tensor) -> None:
        """Write down what became of the images at these places."""
        self.fallen[places] = fallen
        for name, value in values.items():
            getattr(self, name)[places] = value


class PassCounter(nn.Module):
    """A network that counts the passes through it; short batches are filled up."""

    def __init__(self, g: nn.Module):
        super().__init__()
        self.g = g
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """g(x)."""
        self.forwards += 1
        # in train mode the copies would take part in BatchNorm's statistics
        z = self.g(x) if self.g.training else forward_padded(self.g, x)
        if z.requires_grad:
            z.register_hook(self._count)
        return z

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1


@torch.no_grad()
def run_attack(
    attack: AttackProtocol,
    f: nn.Module,
    g: nn.Module,
    x: Tensor,
    y: Tensor,
    noise: Noise,
    run: int = 0,
    ranking: Tensor | None = None,
) -> AttackResult:
    """One run of an attack on one batch.

    Args:
        attack: the attack.
        f: the network whose verdict counts.
        g: the network that is build_inference_model: f, or a faster equal of it; frozen.
        x: images in [0, 1], [B, C, H, W].
        y: labels [B].
        noise: of these images and this attack.
        run: which of the attack's runs; target by target, and for each restart by restart.
        ranking: for targeted attacks, the other classes of each image, likeliest first [B, T].
    """
    rank, restart = divmod(run, attack.restarts)
    if ranking is not None and attack.targets:
        noise = noise.fork("target", rank)
    b = AttackState(
        x, y, noise.fork("restart", restart), place=torch.arange(len(x), device=x.device)
    )
    if ranking is not None and attack.targets:
        b.target = ranking[:, rank]
    meter = PassCounter(g)
    points = attack.points(meter, b, restart)
    search = _any if attack.success_at == "any" else _last
    return search(attack, f, meter, b, points)


Points = Iterator[Tensor | None]
Passes = Sequence[tuple[int, int]]
"""Forward and backward passes up to each iterate."""


def _last(
    attack: AttackProtocol, f: nn.Module, meter: PassCounter, b: AttackState, points: Points
) -> AttackResult:
    """The last iterate counts, and those at the snapshots."""
    out, k = AttackResult.of(b.x), 0
    for k, _ in enumerate(points):
        if k in attack.snapshots:
            out.snapshots[k] = evaluate_points(f, b.x, b.y, b.x_adv, attack.ball)[0]
    stood, lead = evaluate_points(f, b.x, b.y, b.x_adv, attack.ball)
    out.x_adv, out.fallen, out.lead = b.x_adv.detach(), ~stood, lead
    out.iterate += k
    out.forwards += meter.forwards
    out.backwards += meter.backwards
    return out


def _any(
    attack: AttackProtocol, f: nn.Module, meter: PassCounter, b: AttackState, points: Points
) -> AttackResult:
    """The first iterate that is misclassified counts, and its image leaves.

    Should f itself not be fooled by the first that seemed to be between two looks, the one between
    them that misled g most is tried, too.
    """
    out, passes = AttackResult.of(b.x), list[tuple[int, int]]()
    b.found = torch.zeros(len(b), dtype=torch.bool, device=b.x.device)
    b.at = torch.zeros(len(b), dtype=torch.long, device=b.x.device)
    b.x_found, b.lead = b.x, torch.full((len(b),), -torch.inf, device=b.x.device)
    b.x_spare, b.spare, b.spare_at = b.x, b.lead, b.at
    for k, z in enumerate(points):
        z = meter(b.x_adv) if z is None else z
        passes.append((meter.forwards, meter.backwards))
        _look_at(attack, b, z, k)
        if k % LOOK == 0:
            _settle(attack, f, b, out, passes)
            if not len(b):
                break
    _settle(attack, f, b, out, passes)
    b.at = torch.full_like(b.at, len(passes) - 1)
    out.note(b.place, False, x_adv=b.x_adv.detach(), lead=b.lead, **_taken(b.at, passes))
    return out


def _look_at(attack: AttackProtocol, b: AttackState, z: Tensor, k: int) -> None:
    """Remember the first point that seems to be misclassified, and the worst of the later ones.

    Without asking for its value, for which a GPU would wait.
    """
    wrong, lead = z.argmax(1) != b.y, margin(z, b.y)
    if (inside := attack.inside(b)) is not None:
        wrong, lead = wrong & inside, lead.masked_fill(~inside, -torch.inf)
    b.lead = torch.maximum(b.lead, lead)
    first, worse = wrong & ~b.found, wrong & b.found & (lead > b.spare)
    if wrong.is_cpu and not wrong.any():
        return  # asking costs nothing on a CPU
    b.x_found = torch.where(first[:, None, None, None], b.x_adv, b.x_found)
    b.at = b.at.masked_fill(first, k)
    b.found = b.found | first
    b.x_spare = torch.where(worse[:, None, None, None], b.x_adv, b.x_spare)
    b.spare_at = b.spare_at.masked_fill(worse, k)
    b.spare = torch.where(worse, lead, b.spare)


def _settle(
    attack: AttackProtocol, f: nn.Module, b: AttackState, out: AttackResult, passes: Passes
) -> None:
    """Images whose point the network itself gets wrong leave; a false alarm is forgotten."""
    places = b.found.nonzero()[:, 0]
    if not len(places):
        return
    gone = torch.zeros_like(b.found)
    for points, at in ((b.x_found, b.at), (b.x_spare, b.spare_at)):
        stood, lead = evaluate_points(f, b.x[places], b.y[places], points[places], attack.ball)
        fell = places[~stood]
        told = _taken(at[fell], passes)
        out.note(b.place[fell], True, x_adv=points[fell], lead=lead[~stood], **told)
        gone[fell] = True
        places = places[stood & (b.spare[places] > -torch.inf)]
        if not len(places):
            break
    b.found, b.spare = torch.zeros_like(b.found), torch.full_like(b.spare, -torch.inf)
    b.keep((~gone).nonzero()[:, 0])


def _taken(at: Tensor, passes: Passes) -> dict[str, Tensor]:
    """Iterates, and the passes up to them."""
    forwards, backwards = torch.tensor(passes, device=at.device)[at].unbind(1)
    return {"iterate": at, "forwards": forwards, "backwards": backwards}
