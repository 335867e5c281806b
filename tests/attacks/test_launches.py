"""Kernel launches and host waits of an iterate of each attack, on a pretended CUDA device.

There, a CUDA graph is a recording that repeats its operations without running Python, so the
results of runs with graphs are compared with those of a CPU too. On a GPU,
`benchmarks/gpu/attacks_smoke.py` compares them.
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import AttackResult, Ensemble, classes_by_logit, logits, parse_attack, run_attack
from nuat.attacks import candidates as attack_candidates
from nuat.attacks import runner as attack_runner
from nuat.attacks.graphs import GraphCapture, IterateGraphs
from nuat.evaluation import evaluate, runner
from nuat.evaluation.search_model import SearchModel
from nuat.models import build_model
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from tests.pretend_cuda import Counts, PretendedTensor, pretended_cuda, record_graph

STANDS = {"linf": nuat.Linf(1e-6), "l2": nuat.L2(1e-5)}
BREAKS = {"linf": nuat.Linf(0.003), "l2": nuat.L2(0.04)}
IMAGES = 50
FIELDS = ("x_adv", "adversarial", "step", "forwards", "backwards", "margin")

# forward passes and pairs of a forward and a backward pass of an iterate
PASSES = {"fab": (1, 0), "fab-t": (1, 1), "square": (1, 0)}

EAGER = {
    "pgd": (23, 37), "gama": (46, 60), "apgd-ce": (63, 91), "apgd-dlr": (92, 120),
    "apgd-t": (91, 119), "fab-t": (441, 441), "square": (61, 123),
}  # fmt: skip
"""Launches beyond the network's passes in Linf and in L2, in Python."""

REPLAYED = {"apgd-ce": 2, "apgd-dlr": 2, "apgd-t": 2, "fab": 2, "fab-t": 2, "square": 3}
"""All launches with graphs."""


class Net(nn.Module):
    """A small network whose decision boundaries are near."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = build_model("small-cnn(width=4)", 10, 3)
        for _ in range(5):
            self.body.train()(torch.rand(16, 3, 12, 12))
        self.eval()
        with torch.no_grad():
            self.register_buffer("center", self.body(torch.rand(64, 3, 12, 12)).mean(0))

    def forward(self, x):
        return self.body(x + 0.05 * (80 * x).sin()) - self.center  # far from linear


@dataclass
class Run:
    """A run of an attack: its result, and the totals of launches and waits up to each iterate."""

    result: AttackResult
    counts: Counts
    launches: list[int]
    waits: list[int]

    def costs(self, totals: list[int], first: int) -> list[int]:
        """Those of the iterates from `first` to the next look."""
        return [b - a for a, b in pairwise(totals[first : first // 10 * 10 + 11])]


def run(attack, device="cuda", graphs=None, images=8, model=None, iterates=None, owner=()) -> Run:
    """Attack on a device, up to a number of iterates; again, with the `owner` of graphs."""
    model = (model or Net()).to(device)
    x = torch.rand(images, 3, 12, 12, generator=torch.Generator().manual_seed(1)).to(device)
    y = logits(model, x).argmax(1)
    ranking = classes_by_logit(logits(model, x), y) if attack.targets else None
    noise = PerImageNoise(0, torch.arange(images).to(device), "test")
    launches, waits = [], []

    class Counted(type(attack)):
        def iterates(self, *args):
            for k, state in enumerate(super().iterates(*args)):
                launches.append(counts.num_launches)
                waits.append(counts.num_waits)
                yield state
                if k == iterates:
                    return

    search = SearchModel(model)
    if owner:
        attack, search = owner
    counted = (
        attack if owner else Counted(**{f.name: getattr(attack, f.name) for f in fields(attack)})
    )
    with Counts() as counts, frozen_eval(model):
        result = run_attack(counted, model, search, x, y, noise, 0, ranking, graphs)
    return Run(result, counts, launches, waits)


def equal(one: AttackResult, other: AttackResult) -> bool:
    def on_cpu(value):
        return value.inner if isinstance(value, PretendedTensor) else value

    pairs = ((on_cpu(getattr(one, name)), on_cpu(getattr(other, name))) for name in FIELDS)
    return all(torch.equal(a, b) for a, b in pairs) and one.bad_gradients == other.bad_gradients


def launches_of_passes(name: str) -> int:
    """Launches of the network's passes in an iterate."""
    forwards, both = PASSES.get(name, (0, 1))
    model, x = SearchModel(Net().to("cuda")), torch.rand(8, 3, 12, 12).to("cuda")
    with Counts() as forward, torch.no_grad():
        model(x)
    x.requires_grad_()
    with Counts() as pair:
        torch.autograd.grad(model(x).sum(), x)
    return forwards * forward.num_launches + both * pair.num_launches


@pytest.mark.parametrize("norm", STANDS)
@pytest.mark.parametrize("name", EAGER)
def test_an_iterate_in_python(name, norm):
    attack = parse_attack(name, STANDS[norm])
    with pretended_cuda():
        done = run(attack, iterates=5)
        passes = launches_of_passes(name)
    assert not done.counts.mixed
    assert set(done.costs(done.waits, 3)) == {0}
    expected = EAGER[name][norm == "l2"] + passes
    assert set(done.costs(done.launches, 3)) == {expected}


@pytest.mark.parametrize("norm", STANDS)
@pytest.mark.parametrize("name", REPLAYED)
def test_a_replayed_iterate(name, norm):
    """The first iterate of its kind runs in Python, the second is captured."""
    graphs = GraphCapture(record_graph)
    with pretended_cuda():
        done = run(parse_attack(name, STANDS[norm]), graphs=graphs, iterates=9)
    assert not graphs.notes and not done.counts.mixed
    assert set(done.costs(done.waits, 4)) == {0}
    assert set(done.costs(done.launches, 4)) == {REPLAYED[name]}


@pytest.mark.parametrize("norm", BREAKS)
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"])
def test_graphs_give_the_results_of_a_cpu(name, norm, monkeypatch):
    """Images break at several looks; some stay in the batch until more have broken."""
    monkeypatch.setattr(attack_runner, "CHECK_EVERY", 2)
    attack = replace(parse_attack(name, BREAKS[norm]), steps=9)
    on_cpu, graphs = run(attack, "cpu", images=IMAGES), GraphCapture(record_graph)
    with pretended_cuda():
        done = run(attack, graphs=graphs, images=IMAGES)
        assert not graphs.notes and not done.counts.mixed
        assert equal(on_cpu.result, done.result)
        again = run(attack, graphs=graphs, images=IMAGES, owner=graphs.owner)
        assert equal(on_cpu.result, again.result)
        assert again.counts.num_launches < done.counts.num_launches
    assert 0 < on_cpu.result.adversarial.sum() < IMAGES
    assert len({shape for shape, _ in graphs.sets}) > 1


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.body.register_forward_hook(lambda *given: None)


class Random(Net):
    def forward(self, x):
        return super().forward(x) + 0 * nn.functional.dropout(x, 0.5).sum()


class Reads(Net):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


class Remembers(Net):
    """The logits depend on the number of calls in Python."""

    calls = 0

    def forward(self, x):
        self.calls += len(x) == IMAGES + 2
        return super().forward(x) * (1 if self.calls < 5 else 2)


class BadGradients(Net):
    """The gradients of some images are NaN."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        root = (mean * (mean > 0.5)).sqrt()  # the gradient of 0 is infinite, times 0 is NaN
        return super().forward(x) + 1e-3 * root[:, None]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Hooked, "the network has hooks"),
        (Random, "the network draws random numbers"),
        (Reads, "not permitted when stream is capturing"),
        (Remembers, "a captured network returns other logits"),
    ],
)
def test_a_network_that_cannot_be_captured_runs_in_python(model, reason, monkeypatch):
    monkeypatch.setattr(attack_runner, "CHECK_EVERY", 2)
    for module in (attack_runner, attack_candidates):
        monkeypatch.setattr(module, "padded_rows", lambda images: IMAGES + 2)
    attack, graphs = replace(parse_attack("apgd-ce", BREAKS["linf"]), steps=9), None
    results = []
    with pretended_cuda():
        for graphs in (None, GraphCapture(record_graph)):
            results.append(run(attack, graphs=graphs, images=IMAGES, model=model()).result)
    assert graphs is not None and not graphs.enabled
    assert len(graphs.notes) == 1 and reason in graphs.notes[0]
    if model not in (Random, Remembers):
        assert equal(*results)


def test_broken_images_that_stay_in_the_batch_have_no_bad_gradients(monkeypatch):
    monkeypatch.setattr(attack_runner, "CHECK_EVERY", 2)
    for module in (attack_runner, attack_candidates):
        monkeypatch.setattr(module, "padded_rows", lambda images: IMAGES + 2)
    attack = replace(parse_attack("apgd-ce", BREAKS["linf"]), steps=9)
    graphs = GraphCapture(record_graph)
    on_cpu = run(attack, "cpu", images=IMAGES, model=BadGradients())
    with pretended_cuda():
        done = run(attack, graphs=graphs, images=IMAGES, model=BadGradients())
    assert not graphs.notes
    assert equal(on_cpu.result, done.result) and on_cpu.result.bad_gradients > 0


def test_a_draw_of_noise_copies_nothing_to_the_device():
    with pretended_cuda():
        x = torch.rand(4, 3, 2, 2).to("cuda")
        noise = PerImageNoise(0, torch.arange(4).to("cuda"))
        with Counts() as counts:
            for part in (
                noise,
                noise.fold_in("restart", 1),
                noise.select(torch.arange(4).to("cuda")),
            ):
                part.uniform(x), part.sign(x), part.normal(x)
        assert counts.num_waits == 1  # the indices of `select`


def test_an_evaluation_uses_graphs(monkeypatch):
    """Nothing mixes devices in a whole evaluation, and the verdicts are those of a CPU."""
    monkeypatch.setattr(runner, "GraphCapture", partial(GraphCapture, record_graph))
    captures, capture = [], IterateGraphs._capture
    monkeypatch.setattr(
        IterateGraphs,
        "_capture",
        lambda self, *args: captures.append(args) or capture(self, *args),
    )
    x = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    y, results = logits(Net(), x).argmax(1), []
    ball = BREAKS["linf"]
    parts = {name: parse_attack(f"{name}-6", ball) for name in ("apgd-ce", "fab-t", "square")}
    attacks = {"all": Ensemble(ball, tuple(parts.items())), "pgd": parse_attack("pgd-3", ball)}
    for device, more in (("cpu", {}), ("cuda", {}), ("cuda", {"cuda_graphs": False})):
        with pretended_cuda(), Counts() as counts:
            model = Net().to(device)
            results.append(evaluate(model, (x, y), ball, attacks, **more))
        assert not counts.mixed and not any("graphs" in note for note in results[-1].notes)
        assert bool(captures) == (device == "cuda" and not more)
        captures.clear()
    assert 0 < sum(results[0].robust["all"]) < 40
    assert all(result.robust == results[0].robust for result in results)
    with pytest.raises(nuat.InputError, match="CUDA graphs need a cuda device"):
        evaluate(Net(), (x, y), ball, attacks, cuda_graphs=True)
