"""Masked gradients, collapsed training and odd outputs are failed; adversarial training passes."""

import dataclasses
import json

import pytest
import torch
from torch import nn

import nuat
from nuat.diagnosis import CHECKS, Diagnosis
from nuat.diagnosis.check import grade
from nuat.diagnosis.gradients import gradients
from nuat.diagnosis.outputs import outputs
from nuat.diagnosis.subject import Subject
from nuat.diagnosis.surface import surface
from nuat.diagnosis.white_box import loss, random_noise, single_step
from nuat.errors import InputError

BALL, SMALLER, SAMPLES = nuat.Linf(0.3), nuat.Linf(0.1), 40


def perceptron():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def train(method, epochs):
    """Train on the digits without weight decay, with which FGSM-AT collapses at eps 0.3."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, images = perceptron(), nuat.load_dataset("digits").train
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.2 * min(1, (epoch + 1) / 5) * (1 - epoch / epochs)
        for batch, rows in enumerate(torch.randperm(len(images)).split(64)):
            ctx = nuat.StepContext(epoch, batch, batch_size=64)
            for value in method.step(net, *images.batch(rows), ctx):
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def nets():
    return {
        "normal": train(nuat.Standard(), 10),
        "collapsed": train(nuat.AT(inner=nuat.FGSM(BALL)), 40),
        "pgd-at": train(nuat.AT(inner=nuat.PGD(SMALLER, steps=4)), 12),
    }


@pytest.fixture(scope="module")
def images():
    return nuat.load_dataset("digits").test


class Wrapped(nn.Module):
    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        match self.how:
            case "quantized":
                return self.net((x * 4).round() / 4)
            case "shattered":
                return self.net(x + 0.02 * (300 * x).sin())
            case "detached":
                return self.net(x.detach())
            case "scaled":
                return 1000 * self.net(x)
            case "random":
                return self.net(x + 0.3 * torch.randn_like(x))
            case "abstaining":
                return self.net(x) * (x * 16 == (x * 16).round()).flatten(1).all(1)[:, None]
            case "constant":
                return torch.zeros(len(x), 10) + 0 * x.sum()
            case "neighbors":
                return self.net(x) - 5 * self.net(x).mean(0)


def test_pgd_at_passes(nets, images):
    found = nuat.diagnose(
        nets["pgd-at"], images, SMALLER, samples=SAMPLES, transfer_from=nets["normal"]
    )
    assert found.verdict == "pass", found.summary
    assert found.robust_accuracy > 0.5 and "nothing speaks against it" in found.summary
    assert [check.name for check in found.checks] == list(CHECKS)
    assert found["transfer"].numbers["transfer"] >= found["transfer"].numbers["pgd"]
    accuracies = found["radius"].curves["accuracy"]
    assert accuracies[0] > accuracies[2] >= found.robust_accuracy > accuracies[-1] == 0


def test_normal_training_is_not_robust_rather_than_masked(nets, images):
    found = nuat.diagnose(nets["normal"], images, BALL, samples=SAMPLES)
    assert found.verdict != "fail" and found.robust_accuracy == 0
    assert "not robust, and does not pretend to be" in found.summary
    assert found["transfer"].verdict == "skipped"


def test_a_collapsed_fgsm_at_fails(nets, images):
    found = nuat.diagnose(nets["collapsed"], images, BALL, samples=SAMPLES)
    single = found["single step"]
    assert found.verdict == single.verdict == "fail"
    assert single.numbers["fgsm"] > 0.5 > 0.2 > single.numbers["pgd_20"]
    assert "do not believe" in found.summary and "single step" in found.summary
    assert found["gradients"].verdict == found["outputs"].verdict == "pass"


def test_a_masked_network_fails(nets, images):
    masked = Wrapped(nets["normal"], "quantized")
    found = nuat.diagnose(masked, images, BALL, samples=SAMPLES, transfer_from=nets["normal"])
    failed = {check.name for check in found.checks if check.verdict == "fail"}
    assert {"gradients", "random noise", "radius", "square", "transfer"} <= failed
    assert found["gradients"].numbers["zero"] == 1
    assert found["square"].numbers["pgd"] > 0.5 > found["square"].numbers["square"]
    assert found["steps"].verdict == "pass" and "do not believe" in found.summary


def subject(net, images, how):
    indices = list(range(SAMPLES))
    return Subject(Wrapped(net, how), images, indices, BALL, 10, 0)


def test_a_shattered_gradient_fails(nets, images):
    """The layer x + 0.02 sin(300 x) hardly changes an image, and reverses the gradient."""
    shattered = subject(nets["normal"], images, "shattered")
    assert random_noise(shattered).verdict == single_step(shattered).verdict == "fail"


def test_logits_that_saturate_the_cross_entropy_fail(nets, images):
    scaled = subject(nets["normal"], images, "scaled")
    assert gradients(scaled).verdict == loss(scaled).verdict == "fail"
    assert outputs(scaled).verdict == surface(scaled).verdict == "pass"


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("random", "differ from call to call"),
        ("neighbors", "depend on the rest of the batch"),
        ("constant", "100.0% of the images have the very same logits"),
        ("abstaining", "two classes share the largest logit"),
    ],
)
def test_odd_outputs_fail(nets, images, how, found):
    check = outputs(subject(nets["normal"], images, how))
    assert check.verdict == "fail" and found in check.measured


def test_a_network_without_gradients_fails_and_is_attacked_without(nets, images):
    found = nuat.diagnose(Wrapped(nets["normal"], "detached"), images, BALL, samples=30)
    assert found["gradients"].verdict == "fail"
    assert "no gradient reaches the images" in found["gradients"].measured
    assert found["steps"].verdict == "skipped"
    assert found["square"].verdict == "fail" and found["square"].numbers["square"] < 0.5


def test_without_time_every_check_is_skipped(nets, images):
    found = nuat.diagnose(nets["normal"], images, BALL, samples=20, max_time=0)
    assert {check.verdict for check in found.checks} == {"skipped"} and found.ran_out_of_time
    assert "nothing was checked" in found.summary


class Infinite(nn.Module):
    def forward(self, x):
        z = x.flatten(1)[:, 20:30] * 100
        return z.masked_fill(x.amax((1, 2, 3))[:, None] < 0.98, torch.nan)


def test_logits_that_are_not_finite_leave_a_file_that_can_be_read(images, tmp_path):
    odd = Subject(Infinite(), images, list(range(SAMPLES)), SMALLER, 10, 0)
    checks = [outputs(odd), surface(odd)]
    found = nuat.diagnose(Infinite(), images, SMALLER, samples=20, max_time=0)
    found = dataclasses.replace(found, checks=checks)
    found.write(tmp_path / "diagnosis.json")
    content = Diagnosis.read(tmp_path / "diagnosis.json")
    assert checks[0].verdict == "fail" and "NaN or infinite" in checks[0].measured
    assert None in content["surface"].curves["margin along the gradient"]


@pytest.mark.parametrize(("value", "verdict"), [(0.01, "pass"), (0.02, "warn"), (0.2, "fail")])
def test_grade(value, verdict):
    assert grade(value, 0.01, 0.05) == verdict and grade(float("nan"), 0.01, 0.05) == "fail"


def test_the_file(nets, images, tmp_path):
    found = nuat.diagnose(nets["normal"], images, BALL, samples=20, max_time=0)
    file = tmp_path / "diagnosis.json"
    found.write(file)
    assert Diagnosis.read(file).to_dict() == found.to_dict()
    content = json.loads(file.read_text())
    assert content["format_version"] == 1 and content["checksum"]
    file.write_text(json.dumps(content | {"seed": 1}))
    with pytest.raises(InputError, match="damaged"):
        Diagnosis.read(file)
    for change, match in (
        ({"format_version": 2}, "diagnose again"),
        ({"clean_accuracy": 2}, "clean_accuracy is 2"),
        ({"checks": [content["checks"][0] | {"verdict": "good"}]}, "one of pass, skipped"),
    ):
        with pytest.raises(InputError, match=match):
            Diagnosis.from_dict(content | change)


def test_the_command(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    recipe = nuat.get_recipe("normal", "digits").with_epochs(1)
    nuat.fit(recipe.with_override("model", "small-cnn(width=4)"), out="run")
    stopped = call("diagnose run --samples 10 --max-time 0")
    assert stopped.status == 75 and "diagnosis: run/diagnosis.json" in stopped.out
    assert len(Diagnosis.read(tmp_path / "run" / "diagnosis.json").indices) == 10
    (tmp_path / "flat.py").write_text(
        "import torch\n"
        "class Flat(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.zeros(len(x), 10) + 0 * x.sum()\n"
        "def make(): return Flat()\n"
    )
    flat = "diagnose flat:make --import flat.py --data digits --samples 20"
    assert "give --eps" in call(flat).err
    failed = call(f"{flat} --eps 0.15 --transfer-from run --out flat.json")
    assert failed.status == 1 and "do not believe a robust accuracy" in failed.out
    written = Diagnosis.read(tmp_path / "flat.json")
    assert written.verdict == "fail" and "very same logits" in written["outputs"].measured
    assert call("diagnose run --samples 0").status == 2
    assert "no folder" in call("diagnose run --out no/where.json").err
