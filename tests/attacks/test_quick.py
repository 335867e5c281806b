"""The quick attacks: MM5, and APGD-T with the targets of MALT."""

import json

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import APGDMALT, APGDT, MM, logits
from nuat.attacks.quick import UPPER_BOUND, linearized_margins
from nuat.nn.freeze import frozen_eval
from nuat.rng import PerImageNoise
from nuat.threat_models import L2, Linf
from tests.reference.malt import order_of_targets


@pytest.fixture(scope="module")
def net():
    """A smooth network with rows of different lengths, so that likely classes may be far away."""
    torch.manual_seed(1)
    body, head = nn.Linear(16, 24).double(), nn.Linear(24, 9).double()
    body.weight.data *= 3
    body.bias.data = -0.5 * body.weight.data.sum(1)
    head.weight.data *= torch.linspace(0.3, 3, 9)[torch.randperm(9), None]
    return nn.Sequential(nn.Flatten(), body, nn.Tanh(), head).eval()


@pytest.fixture(scope="module")
def images(net):
    x = torch.rand(30, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, net(x).argmax(1)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=str)
@pytest.mark.parametrize("candidates", [100, 4, 1])
def test_the_targets_of_malt_are_those_of_its_transcription(net, images, ball, candidates):
    x, y = images
    z = logits(net, x)
    with frozen_eval(net) as model:
        ours = APGDMALT(ball, candidates=candidates).rank_targets(model, x, y, z)
        likely = APGDT(ball).rank_targets(model, x, y, z)
    norm = "linf" if isinstance(ball, Linf) else "l2"
    expected = [order_of_targets(net, x[i], int(y[i]), norm, candidates) for i in range(len(x))]
    assert ours.tolist() == expected
    assert torch.equal(ours.sort(1).values, likely.sort(1).values)
    assert torch.equal(ours, likely) == (candidates == 1), "the two orders differ"


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=str)
def test_scores_of_a_linear_network_are_minus_its_distances(ball):
    """A step of length -score along the steepest direction reaches the boundary."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6)).double().requires_grad_(False)
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    y, classes = net(x).argmax(1), torch.arange(6).expand(5, 6)
    scores = linearized_margins(net, x, y, classes, ball)
    weights = net[1].weight
    for i in range(5):
        for j in range(6):
            if j != y[i]:
                w = (weights[j] - weights[y[i]]).reshape(1, 1, 4, 4)
                z = net(x[i : i + 1] - scores[i, j] * ball.steepest_direction(w))[0]
                assert scores[i, j] < 0 and abs(z[j] - z[y[i]]) < 1e-9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mm5", MM(steps=20, targets=5)),
        ("MM5", MM(steps=20, targets=5)),
        ("mm5-100(targets=9)", MM(steps=100, targets=9)),
        ("apgd-t-malt", APGDMALT(steps=100, targets=9)),
        ("apgd-t-malt-50(candidates=20)", APGDMALT(steps=50, targets=9, candidates=20)),
    ],
)
def test_names(text, expected):
    assert nuat.parse_attack(text, expected.ball) == expected


def test_candidates_start_at_one():
    with pytest.raises(nuat.errors.InputError, match="candidates is 0"):
        APGDMALT(candidates=0)


def test_with_one_target_malt_is_apgd_toward_another_class(net, images):
    """The nearest class breaks other images than the most likely one, with the same steps."""
    x, y = images
    ball, noise = Linf(0.05), PerImageNoise(0, torch.arange(len(x)))
    found = {
        kind: net(kind(ball, targets=1, steps=20)(net, x, y, noise)).argmax(1) != y
        for kind in (APGDT, APGDMALT)
    }
    assert found[APGDMALT].sum() > found[APGDT].sum()


def test_an_evaluation_records_the_targets_that_were_tried(net, images, tmp_path):
    x, y = (part.float() if part.is_floating_point() else part for part in images)
    model, ball = net.float(), Linf(0.05)
    parts = "custom(parts=('apgd-t-20(targets=1)','apgd-t-malt-20(targets=1)'))"
    try:
        found = nuat.evaluate(
            model, (x, y), ball, [parts, "mm5", "apgd-t-malt-20"], out=tmp_path / "out"
        )
        with frozen_eval(model) as frozen_model:
            z = logits(model, x)
            nearest = APGDMALT(ball).rank_targets(frozen_model, x, y, z)[:, 0].tolist()
    finally:
        net.double()
    records = [json.loads(line) for line in (tmp_path / "out/verdicts.jsonl").open()]
    broken = [r for r in records if (r["attacks"][parts]["broken_by"] or "").startswith("apgd-t-m")]
    assert broken and all(r["attacks"][parts]["target"] == nearest[r["index"]] for r in broken)
    likely = z.scatter(1, y[:, None], -torch.inf).argmax(1).tolist()
    assert any(likely[r["index"]] != nearest[r["index"]] for r in broken)
    for name in ("mm5", "apgd-t-malt-20"):
        assert f"{name}: {UPPER_BOUND}" in found.notes
