"""Verdicts on adversarial images rounded to 8 bits, and those images as PNG files."""

import json

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

import nuat
from nuat.attacks import Attack
from nuat.evaluation import EvaluationResult
from nuat.evaluation.eight_bit import round_to_8_bits
from tests.evaluation.conftest import BALL

CLEAN, EDGE = 100 / 255, 110.3 / 255
ATTACK = "pgd-20(restarts=2)"


class AboveTheEdge(nn.Module):
    """Class 0 where the mean of the image is below 110.3 / 255, and class 1 above."""

    def forward(self, x):
        height = 1000 * (x.flatten(1).mean(1) - EDGE)
        return torch.stack([torch.zeros_like(height), height], 1)


class Brighten(Attack):
    """Make image i brighter by `steps[i]` / 255."""

    def run(self, model, x, y, noise):
        steps = torch.tensor([9.0, 10.4, 10.8, 11.2])
        return x + steps[:, None, None, None] / 255


@pytest.mark.parametrize(("eps", "outside"), [(11.2 / 255, 0), (10.9 / 255, 1)])
def test_an_image_counts_if_it_is_misclassified_after_plain_rounding(eps, outside, tmp_path):
    x, y = torch.full((4, 1, 2, 2), CLEAN), torch.zeros(4, dtype=torch.long)
    ball = nuat.Linf(eps)
    found = nuat.evaluate(
        AboveTheEdge(), (x, y), ball, {"up": Brighten(ball)}, out=tmp_path / "out"
    )
    reached = eps >= 11.2 / 255  # the last image of the others is out of the ball before rounding
    assert found.robust["up"] == [True, False, False, not reached]
    assert found.robust_8bit["up"] == [True, True, False, not reached]
    assert found.robust_accuracy_8bit("up") == sum(found.robust_8bit["up"]) / 4
    assert found.outside_8bit == {"up": outside}
    records = [json.loads(line) for line in (tmp_path / "out/verdicts.jsonl").open()]
    verdicts = [record["attacks"]["up"] for record in records]
    assert [verdict["robust_8bit"] for verdict in verdicts] == found.robust_8bit["up"]
    steps = [None, 10, 11, 11 if reached else None]
    expected = [None if step is None else pytest.approx(step / 255, abs=1e-6) for step in steps]
    assert [verdict["distance_8bit"] for verdict in verdicts] == expected


def test_on_the_grid_of_8_bits_rounding_stays_in_the_ball(net):
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    found = nuat.evaluate(net, (x, net(x).argmax(1)), nuat.Linf(8 / 255), ["pgd-10"])
    assert sum(found.robust["pgd-10"]) < 60
    assert found.outside_8bit == {"pgd-10": 0}


def test_the_png_files_are_what_was_judged(net, images, tmp_path):
    out = tmp_path / "out"
    found = nuat.evaluate(net, images, BALL, [ATTACK], out=out, save_adversarial=True)
    (folder,) = (out / "adversarial").iterdir()
    files = {int(file.stem): file for file in folder.iterdir()}
    fallen = [i for i, robust in enumerate(found.robust[ATTACK]) if not robust]
    correct = [i for i in fallen if found.predicted[i] == found.labels[i]]
    assert sorted(files) == correct and len(correct) > 10
    stored = nuat.evaluation.log.load((out / "adversarial.safetensors").read_bytes())
    for index, x_adv in zip(correct, stored[f"{ATTACK}/x_adv"], strict=True):
        pixels = torch.from_numpy(numpy.array(Image.open(files[index])))[None, None] / 255
        assert torch.equal(pixels[0], round_to_8_bits(x_adv))
        robust = int(net(pixels).argmax(1)) == found.labels[index]
        assert robust == found.robust_8bit[ATTACK][index]


def test_png_files_of_color_images_keep_their_channels(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(20, 3, 4, 4)
    y, out = model(x).argmax(1), tmp_path / "out"
    nuat.evaluate(model, (x, y), nuat.Linf(0.5), ["fgsm"], out=out, save_adversarial=True)
    stored = nuat.evaluation.log.load((out / "adversarial.safetensors").read_bytes())
    assert len(stored["fgsm/index"]) > 5
    for index, x_adv in zip(stored["fgsm/index"].tolist(), stored["fgsm/x_adv"], strict=True):
        pixels = numpy.array(Image.open(out / f"adversarial/fgsm/{index}.png"))
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1) / 255, round_to_8_bits(x_adv))


def test_images_of_two_channels_have_no_png_file_and_a_note(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), torch.rand(20, 2, 4, 4)
    y, out = model(x).argmax(1), tmp_path / "out"
    found = nuat.evaluate(model, (x, y), nuat.Linf(0.5), ["fgsm"], out=out, save_adversarial=True)
    assert any("2 channels" in note for note in found.notes)
    assert (out / "adversarial.safetensors").exists()
    assert not list((out / "adversarial").rglob("*.png"))


def test_a_link_in_the_place_of_a_png_file_is_replaced(net, images, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other.txt"
    asked = {"indices": range(40), "out": out, "save_adversarial": True}
    nuat.evaluate(net, images, BALL, ["fgsm"], **asked)
    file = next((out / "adversarial/fgsm").iterdir())
    before = file.read_bytes()
    other.write_text("mine")
    file.unlink()
    file.symlink_to(other)
    nuat.evaluate(net, images, BALL, ["fgsm"], **asked)
    assert other.read_text() == "mine" and not file.is_symlink() and file.read_bytes() == before


def test_results_of_earlier_versions_lack_the_figure(net, images):
    scores = nuat.evaluate(net, images, BALL, ["fgsm"], samples=20).to_dict()
    assert EvaluationResult.from_dict(scores).robust_8bit["fgsm"] == scores["robust_8bit"]["fgsm"]
    fields = {k: v for k, v in scores.items() if "8bit" not in k and k != "checksum"}
    earlier = nuat.runtime.checksums.with_checksum(fields)
    assert EvaluationResult.from_dict(earlier).robust_8bit == {}
