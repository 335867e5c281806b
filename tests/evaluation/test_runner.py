"""Batches that do not fit into memory."""

import weakref

import pytest
import torch

import nuat
from nuat.evaluation import runner
from tests.evaluation.conftest import ATTACKS, BALL


def test_batches_are_halved_when_memory_runs_out(net, images, expected, tmp_path, monkeypatch):
    real = runner.run_attack

    def short_of_memory(attack, f, g, x, *rest):
        if len(x) > 40:
            raise torch.OutOfMemoryError("out of memory")
        return real(attack, f, g, x, *rest)

    monkeypatch.setattr(runner, "run_attack", short_of_memory)
    out = tmp_path / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, out=out, batch_size=130)
    assert [note for note in scores.notes if "halved" in note] == [
        "out of memory with batches of 130 images: halved",
        "out of memory with batches of 65 images: halved",
    ]
    assert (out / "verdicts.jsonl").read_bytes() == expected


class Greedy(torch.nn.Module):
    """A network that asks for more memory than there is when a batch is too large for it."""

    def __init__(self, f, most):
        super().__init__()
        self.f, self.most = f, most

    def forward(self, x):
        if len(x) > self.most:
            torch.empty(2**48)
        return self.f(x)


def test_batches_are_halved_when_cpu_memory_runs_out(net, images):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Greedy(net, 40)(images.batch(torch.arange(41))[0])
    scores = nuat.evaluate(Greedy(net, 40), images, BALL, ["pgd-2"], batch_size=130)
    assert [note for note in scores.notes if "halved" in note] == [
        "out of memory with batches of 130 images: halved",
        "out of memory with batches of 65 images: halved",
    ]
    plain = nuat.evaluate(net, images, BALL, ["pgd-2"])
    assert scores.robust == plain.robust


def test_memory_of_a_failed_batch_is_freed_before_smaller_ones(net, images, monkeypatch):
    real, held = runner.run_attack, []

    def short_of_memory(attack, f, g, x, *rest):
        assert not any(batch() is not None for batch in held)
        if len(x) > 10:
            held.append(weakref.ref(x))
            raise torch.OutOfMemoryError("out of memory")
        return real(attack, f, g, x, *rest)

    monkeypatch.setattr(runner, "run_attack", short_of_memory)
    nuat.evaluate(net, images, BALL, ["pgd-2"], samples=40, batch_size=40)
    assert len(held) == 2


def test_memory_too_small_for_one_image_is_an_error(net, images, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(runner, "run_attack", never)
    with pytest.raises(torch.OutOfMemoryError):
        nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10)
