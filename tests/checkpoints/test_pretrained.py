"""The models that come with nuat have the accuracies that their entries state."""

import json
from pathlib import Path

import pytest

import nuat
from nuat.checkpoints import pretrained
from nuat.checkpoints.pretrained import list_pretrained
from nuat.data import load_dataset

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [name for name in list_pretrained() if "digits" in name])
def test_the_accuracies_are_those_of_the_entry(name):
    entry, loaded = list_pretrained()[name], nuat.load_model(name)
    images = load_dataset(entry.data).test
    assert (loaded.data, repr(loaded.ball), len(images)) == (entry.data, entry.ball, entry.images)
    result = nuat.evaluate(loaded.model, images, loaded.ball, ["pgd-20"])
    # processors round differently; one image of 400 is 0.25 %
    assert 100 * result.clean_accuracy == pytest.approx(entry.accuracy["clean"], abs=0.26)
    assert 100 * result.robust_accuracy("pgd-20") == pytest.approx(
        entry.accuracy["pgd-20"], abs=0.51
    )


def test_every_entry_is_small_and_has_its_log():
    for entry in list_pretrained().values():
        file = pretrained.FOLDER / entry.file
        assert file.stat().st_size < 8 * 2**20
        assert (ROOT / entry.log).is_file()
        assert min(entry.accuracy.values()) == entry.accuracy[list(entry.accuracy)[-1]]
    files = {entry.file for entry in list_pretrained().values()}
    assert files == {file.name for file in pretrained.FOLDER.glob("*.safetensors")}


def test_an_unknown_name_and_a_damaged_file_are_refused(tmp_path, monkeypatch):
    with pytest.raises(nuat.InputError, match=r"unknown pretrained model .*nuat:digits/nuat-wa"):
        nuat.load_model("nuat:digits/nuat-w")
    described = json.loads((pretrained.FOLDER / "models.json").read_text())
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    file = tmp_path / described["digits/nuat-wa"]["file"]
    for content in (None, b"damaged"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(nuat.InputError, match=r"damaged: sha256 is .*Install nuat again"):
            nuat.load_model("nuat:digits/nuat-wa")


def test_the_command_line_takes_the_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = call("list pretrained")
    assert listed.status == 0 and "nuat:digits/nuat-wa" in listed.out
    done = call("evaluate nuat:digits/nuat-wa --attack fgsm --samples 20")
    assert done.status == 0 and "fgsm" in done.out
    doctor = call("doctor")
    assert doctor.status == 0 and "self-test  passed" in doctor.out
    for text in ("torch", "extra vision", "data cifar10"):
        assert text in doctor.out


def test_a_network_instead_of_its_name_is_refused():
    net = nuat.build_model("small-cnn(width=32)", classes=10, channels=1)
    with pytest.raises(nuat.InputError, match="model is a SmallCNN, but must be a name"):
        nuat.load_model("nuat:digits/nuat-wa", model=net)
