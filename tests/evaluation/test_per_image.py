"""Verdicts agree with what the attacks did to each image."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

import nuat
from nuat.attacks import (
    PGD,
    Attack,
    AttackState,
    run_attack,
)
from nuat.rng import Noise
from tests.evaluation.conftest import ATTACKS, BALL


def test_verdicts_agree_with_the_attack(net, images, expected):
    records = [json.loads(line) for line in expected.splitlines()]
    assert [record["index"] for record in records] == list(range(len(images)))
    parts = nuat.parse_attack(ATTACKS[0], BALL).applicable(10)[0]
    seen = set()
    for record in records:
        found = record["attacks"][ATTACKS[0]]
        assert record["label"] == int(images.y[record["index"]])
        assert (record["margin"] < 0) == (record["predicted"] == record["label"])
        if found["broken_by"] is None:
            assert found["robust"] == (record["predicted"] == record["label"])
            continue
        seen.add(found["broken_by"])
        assert not found["robust"] and found["margin"] >= 0
        assert 0 < found["distance"] <= BALL.eps + 1e-6
        targeted = parts[found["broken_by"]].targets > 0
        assert (found["target"] is not None) == targeted
        assert found["target"] != record["label"]
        assert 0 <= found["step"] < found["forwards"] + 1
    assert len(seen) >= 2


def test_stored_adversarial_images_are_adversarial(net, images, tmp_path):
    out = tmp_path / "out"
    scores = nuat.evaluate(
        net, images, BALL, ["apgd-ce-20"], out=out, save_adversarial=True, batch_size=90
    )
    kept = load_file(out / "adversarial.safetensors")
    ids, points = kept["apgd-ce-20/index"], kept["apgd-ce-20/x_adv"]
    fell = [i for i, stood in enumerate(scores.robust["apgd-ce-20"]) if not stood]
    assert set(ids.tolist()) == {i for i in fell if scores.predicted[i] == scores.labels[i]}
    x, y = images.batch(ids)
    assert len(ids) > 5 and (points - x).abs().max() <= BALL.eps + 1e-6
    assert (net(points).argmax(1) != y).all()


def test_snapshots_equal_shorter_attacks(net, images):
    whole = nuat.evaluate(net, images, BALL, {"pgd": PGD(BALL, steps=20, snapshots=(3, 7))})
    for k in (3, 7, 20):
        short = nuat.evaluate(net, images, BALL, {"pgd": PGD(BALL, steps=k)})
        column = "pgd" if k == 20 else f"pgd at {k}"
        assert whole.robust[column] == short.robust["pgd"]


def test_snapshots_equal_shorter_attacks_with_restarts(net, images, tmp_path):
    one, many = (
        PGD(BALL, steps=20, snapshots=(3,), restarts=4),
        PGD(BALL, steps=3, restarts=4),
    )
    out = tmp_path / "out"
    found = nuat.evaluate(net, images, BALL, {"pgd": one}, out=out, save_adversarial=True)
    assert found.robust["pgd at 3"] == nuat.evaluate(net, images, BALL, {"pgd": many}).robust["pgd"]
    tally = found.parts["pgd"]["pgd"]
    right = sum(a == b for a, b in zip(found.labels, found.predicted, strict=True))
    assert tally["images"] - tally["broken"] == sum(found.robust["pgd"]) < right
    records = (out / "verdicts.jsonl").read_text().splitlines()
    told = {r["index"]: r["attacks"]["pgd"] for r in map(json.loads, records)}
    kept = load_file(out / "adversarial.safetensors")
    ids, points = kept["pgd/index"], kept["pgd/x_adv"]
    lead = nuat.losses.margin(net(points), images.batch(ids)[1]).tolist()
    assert all(
        math.isclose(z, told[i]["margin"], abs_tol=1e-4)
        for i, z in zip(ids.tolist(), lead, strict=True)
    )
    assert len(ids) == tally["broken"]


class Walk(Attack):
    """The images become lighter by a thousandth at each of 12 points."""

    success_at: str = "any"

    def iterates(self, model, x, y, target, noise, restart):
        state = AttackState(x=x, y=y, noise=noise, x_adv=x)
        for k in range(12):
            state.x_adv = state.x + 0.001 * k
            yield state


class MisclassifiesAt(torch.nn.Module):
    """Two logits of a grey image; the second is ahead, by so much, after so many thousandths."""

    def __init__(self, leads):
        super().__init__()
        self.leads = torch.tensor([leads.get(k, -1.0) for k in range(12)])

    def forward(self, x):
        lead = self.leads[(x.flatten(1).mean(1) * 1000).round().long()]
        return torch.stack([-lead, torch.zeros_like(lead)], 1)


@pytest.mark.parametrize(
    ("search_model", "itself", "iterate"),
    [
        ({2: 0.1}, {2: 0.1}, 2),
        ({2: 0.1, 5: 0.3, 7: 0.2}, {2: 0.1, 5: 0.3}, 2),
        ({2: 0.1, 5: 0.3, 7: 0.2}, {5: 0.3}, 5),
        ({2: 0.3, 5: 0.1}, {5: 0.1}, 5),
        ({2: 0.1, 11: 0.1}, {11: 0.1}, 11),
        ({2: 0.1, 5: 0.3}, {}, None),
    ],
)
def test_an_unverified_candidate_does_not_hide_a_later_one(search_model, itself, iterate):
    x, y = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    attack = Walk(nuat.Linf(0.1), success_at="any")
    done = run_attack(attack, MisclassifiesAt(itself), MisclassifiesAt(search_model), x, y, Noise())
    assert done.adversarial.tolist() == [iterate is not None] * 3
    if iterate is not None:
        assert done.step.tolist() == [iterate] * 3
        assert torch.equal(done.x_adv, x + 0.001 * iterate)


def test_any_iterate_is_at_least_as_strong_as_the_last(net, images):
    found = {}
    for success_at in ("last", "any"):
        scores = nuat.evaluate(
            net, images, BALL, {"pgd": PGD(BALL, steps=10, success_at=success_at)}
        )
        found[success_at] = scores.robust["pgd"]
    pairs = zip(found["any"], found["last"], strict=True)
    assert all(last or not stood for stood, last in pairs)
