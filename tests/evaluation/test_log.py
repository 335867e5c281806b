"""The log: resuming, refusing other folders, damaged lines."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import nuat
from nuat.errors import InputError
from nuat.evaluation import runner
from nuat.evaluation.log import EvaluationLog
from tests.evaluation.conftest import BALL

CONFIG = {"model_fingerprint": "its fingerprint", "attacks": {}, "seed": 0}


def test_a_finished_evaluation_is_not_repeated(net, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = nuat.evaluate(net, images, BALL, ["pgd-3"], samples=40, out=out)
    monkeypatch.setattr(runner, "run_attack", lambda *_: pytest.fail("attacked again"))
    again = nuat.evaluate(net, images, BALL, ["pgd-3"], samples=40, out=out)
    assert again.robust == first.robust and again.seconds == first.seconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ball": nuat.Linf(0.1)}, r"ball: Linf\(0.1\) here, Linf\(0.15\) there"),
        ({"attacks": ["pgd-4"]}, r"attacks.pgd-3"),
        ({"seed": 1}, r"seed: 1 here, 0 there"),
        ({"samples": 20}, r"images.count: 20 here, 30 there"),
        ({"search_precision": "bf16"}, r"search_precision: bf16 here, fp32 there"),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(net, images, tmp_path, change, message):
    asked = {"ball": BALL, "attacks": ["pgd-3"], "samples": 30, "out": tmp_path / "out"}
    nuat.evaluate(net, images, **asked)
    before = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, images, **{**asked, **change})
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == before


def test_a_folder_of_another_network_is_refused(net, images, tmp_path):
    nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10, out=tmp_path / "out")
    other = nuat.models.model_registry["small-cnn"](classes=10, channels=1, width=8)
    with pytest.raises(InputError, match=r"model_fingerprint: \w+ here, \w+ there"):
        nuat.evaluate(other, images, BALL, ["pgd-3"], samples=10, out=tmp_path / "out")


def test_a_folder_of_other_images_is_refused(net, images, tmp_path):
    x, y = images.batch(torch.arange(40))
    asked = {"ball": BALL, "attacks": ["pgd-3"], "out": tmp_path / "out"}
    nuat.evaluate(net, (x, y), **asked)
    for other in ((x.flip(3), y), (x, (y + 1) % 10)):
        with pytest.raises(InputError, match=r"images.content_hash: \w+ here, \w+ there"):
            nuat.evaluate(net, other, **asked)


def test_ranks_may_create_the_folder_at_the_same_time(tmp_path):
    for turn in range(30):
        folder, ready = tmp_path / str(turn), threading.Barrier(2)

        def start(rank, folder=folder, ready=ready):
            ready.wait()
            return EvaluationLog.open(folder, CONFIG, rank)

        with ThreadPoolExecutor(2) as ranks:
            assert [log.entries for log in ranks.map(start, (0, 1))] == [[], []]
        assert [file.name for file in folder.iterdir()] == ["config.json"]


def test_metadata_of_an_evaluation_must_stay_the_same(tmp_path):
    metadata = {"data": "digits", "model": "resnet18"}
    for _ in range(2):
        EvaluationLog.open(tmp_path / "new", CONFIG | {"metadata": metadata})
    for other, message in (
        ({"data": "mnist", "model": "resnet18"}, "metadata.data: mnist here, digits there"),
        ({"data": "digits", "model": "resnet18-nuat"}, "model: resnet18-nuat here, resnet18 there"),
        ({"data": "digits"}, "metadata.model: nothing here, resnet18 there"),
    ):
        with pytest.raises(InputError, match=message):
            EvaluationLog.open(tmp_path / "new", CONFIG | {"metadata": other})


def test_a_folder_whose_creation_was_killed_can_be_used(tmp_path):
    (tmp_path / "config.json-0.partial").write_text("{")
    assert EvaluationLog.open(tmp_path, CONFIG).entries == []


def test_a_folder_with_other_files_is_refused_and_kept(net, images, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an evaluation"):
        nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
