"""The published training iteration of NuAT, NuAT-WA and NuAT2-WA, and what can be changed in it.

Written from the description of the published arithmetic: float32, torch's nuclear norm, clean
logits with their graph, attack gradients by `.backward()`, averages entry by entry. Each change
leaves the weights as they are, to the last bit; the last one rounds differently, which NuAT2-WA,
whose attack sees an average, feels.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuat.nn.batchnorm import record_bn_update
from nuat.nn.ema import EMA
from nuat.recipes import Recipe

EPS = 8 / 255
CHANGES = ("detach", "input gradient", "shared clean pass", "foreach average")


def nuclear(d: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(d, ord="nuc")


def start(x: Tensor) -> Tensor:
    signs = torch.empty_like(x).bernoulli_(0.5).mul_(2).sub_(1)
    return (x + 4 / 255 * signs).clamp(0, 1).detach().requires_grad_()


def advance(x_adv: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    moved = (x_adv.detach() + EPS * gradient.sign()).clamp(0, 1)
    return (x + (moved - x).clamp(-EPS, EPS)).clamp(0, 1)


class DictAverage:
    """The average as published: a dict of tensors, entry by entry, counters as floats too.

    It begins as the live tensors themselves, so the first update averages a thing with itself.
    """

    def __init__(self, f: nn.Module, tau: float):
        self.tau, self.average, self.model = tau, dict(f.state_dict()), copy.deepcopy(f)

    def update(self, f: nn.Module) -> None:
        live = f.state_dict()
        for key in self.average:
            self.average[key] = self.tau * self.average[key] + (1 - self.tau) * live[key]


class Published:
    """A recipe's iteration as published, with some of the CHANGES."""

    def __init__(self, recipe: Recipe, f: nn.Module, batches: int, changes: tuple[str, ...] = ()):
        self.recipe, self.f, self.batches, self.changes = recipe, f, batches, changes
        self.optimizer = torch.optim.SGD(
            f.parameters(), lr=0.0, weight_decay=recipe.weight_decay, momentum=0.9
        )
        kind = EMA if "foreach average" in changes else DictAverage
        decays = [recipe.ema_decay, getattr(recipe.method, "attack_ema_decay", None)]
        self.averages = [kind(f, decay) for decay in decays if decay is not None]

    def step(self, x: Tensor, y: Tensor, epoch: int, place: int) -> None:
        now = epoch + place / self.batches
        for group in self.optimizer.param_groups:
            group |= {"lr": self.recipe.lr(now), "momentum": self.recipe.momentum(now)}
        lam = self.recipe.method.lam(epoch)
        if hasattr(self.recipe.method, "attack_ema_decay"):
            self.two_steps(x, y, lam)
        else:
            self.one_step(x, y, lam, place)
        for average in self.averages:
            average.update(self.f)

    def gradient(self, loss: Tensor, x_adv: Tensor) -> Tensor:
        if "input gradient" in self.changes:
            return torch.autograd.grad(loss, x_adv)[0]
        loss.backward()
        return x_adv.grad

    def one_step(self, x: Tensor, y: Tensor, lam: float, place: int) -> None:
        """NuAT, NuAT-WA."""
        f = self.f.train()
        with record_bn_update(f) as first:
            clean = f(x)
        f.eval()
        if "input gradient" in self.changes:
            f.requires_grad_(False)
        x_adv = start(x)
        z = f(x_adv)
        loss = F.cross_entropy(z, y)
        if place % 2:
            there = clean.detach() if "detach" in self.changes else clean
            loss = loss + lam * (nuclear(z - there) / len(x))
        x_adv = advance(x_adv, x, self.gradient(loss, x_adv))
        f.train().requires_grad_(True)
        self.optimizer.zero_grad()
        shared = "shared clean pass" in self.changes
        z_adv = f(x_adv)
        self.descend(clean if shared else f(x), z_adv, y, lam)
        if shared:
            first.apply_again()

    def two_steps(self, x: Tensor, y: Tensor, lam: float) -> None:
        """NuAT2-WA: the first step attacks the average of 0.99, the second the network."""
        f, average = self.f.eval(), self.averages[-1]
        teacher = average.model.eval()
        if isinstance(average, DictAverage):
            teacher.load_state_dict(average.average)
        if "shared clean pass" not in self.changes:
            f(x)  # computed and not used
        if "detach" in self.changes:
            with torch.no_grad():
                clean = teacher(x)
        else:
            clean = teacher(x).detach()
        if "input gradient" in self.changes:
            f.requires_grad_(False)
            teacher.requires_grad_(False)
        x_adv = start(x)
        z = teacher(x_adv)
        loss = F.cross_entropy(z, y) + lam * (nuclear(z - clean) / len(x))
        x_adv = advance(x_adv, x, self.gradient(loss, x_adv)).requires_grad_()
        x_adv = advance(x_adv, x, self.gradient(F.cross_entropy(f(x_adv), y), x_adv))
        f.train().requires_grad_(True)
        self.optimizer.zero_grad()
        z_adv = f(x_adv)
        self.descend(f(x), z_adv, y, lam)

    def descend(self, z: Tensor, z_adv: Tensor, y: Tensor, lam: float) -> None:
        loss = F.cross_entropy(z, y) + lam * (nuclear(z_adv - z) / len(y))
        loss.backward()
        self.optimizer.step()
