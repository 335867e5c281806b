"""A weakly trained model and its images, shared by the evaluation tests."""

import pytest
import torch

import nuat

BALL, IMAGES = nuat.Linf(0.15), 150
ATTACKS = ["custom(parts=('apgd-ce-20','apgd-t-10','fab-t-10','square-60'))", "pgd-10(restarts=3)"]


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """A network that some attacks fool, in a run folder."""
    row = (
        nuat.get_recipe("fgsm-at", "digits")
        .with_epochs(4)
        .with_override("model", "small-cnn(width=8)")
    )
    return nuat.fit(row, out=tmp_path_factory.mktemp("verdicts") / "run")


@pytest.fixture(scope="package")
def net(run):
    return nuat.load_model(run.path).model


@pytest.fixture(scope="package")
def images():
    return nuat.load_dataset("digits").test.subset(torch.arange(IMAGES))


@pytest.fixture(scope="package")
def expected(net, images, tmp_path_factory):
    """The verdicts of the plainest way."""
    out = tmp_path_factory.mktemp("plain") / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, out=out, batch_size=64)
    assert 0.05 < scores.worst_case_accuracy < scores.clean_accuracy, (
        "an evaluation with nothing to find shows nothing"
    )
    fallen = {part: tally["broken"] for part, tally in scores.parts[ATTACKS[0]].items()}
    assert sum(count > 0 for count in fallen.values()) >= 2, fallen
    return (out / "verdicts.jsonl").read_bytes()
