"""The data and the models that `nuat report` needs for the images on its page."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from nuat.data import dataset_registry, load_dataset
from nuat.data.paths import data_dir
from nuat.errors import InputError
from nuat.models import architecture
from nuat.runtime.checksums import with_checksum
from tests.command_line import assert_refused
from tests.report.test_report import Page, gallery_images

FACTORY = """
from nuat.models import build_model

def make(classes, channels):
    return build_model("small-cnn(width=4)", classes, channels)

def narrow(classes, channels):
    return build_model("small-cnn(width=2)", classes, channels)
"""


def elsewhere():
    """The digits, if a folder `elsewhere` lies where data are looked for."""
    if not (data_dir() / "elsewhere").is_dir():
        raise InputError("elsewhere was not found; name the folder that holds it with --data-dir")
    return load_dataset("digits")


@pytest.fixture
def far(in_samples_copy, monkeypatch):
    """A run whose data are found with --data-dir alone."""
    dataset_registry.add("elsewhere", elsewhere)
    monkeypatch.setenv("NUAT_DATA", "nowhere")  # and what the command changes of it is put back
    rewrite(in_samples_copy / "run", data={"name": "elsewhere"})
    (in_samples_copy / "disk" / "elsewhere").mkdir(parents=True)
    yield in_samples_copy
    dataset_registry.pop("elsewhere")


def rewrite(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    merged = {
        key: {**config[key], **value} if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    del config["checksum"]
    file.write_text(json.dumps(with_checksum(config | merged)))


def test_data_are_read_from_data_dir(far, call):
    without = call("report run")
    assert without.status == 0 and "--data-dir" in without.err and "\n" not in without.err.strip()
    assert without.err.startswith("warning: run is shown without images: elsewhere was not found")
    assert len(gallery_images(Page(far / "run" / "report.html"))) == 0
    done = call("report run --data-dir disk")
    assert (done.status, done.err) == (0, "")
    assert len(gallery_images(Page(far / "run" / "report.html"))) == 18


def test_data_dir_must_exist(in_samples_copy, call):
    assert_refused(call, in_samples_copy, "report run --data-dir nodisk", "--data-dir nodisk")
    assert_refused(call, in_samples_copy, "evaluate run --data-dir nodisk", "--data-dir nodisk")


@pytest.fixture
def own(in_samples_copy, monkeypatch, call):
    """`mine`, a run of a network of somebody's own; `run`, one that says its own.

    Gives `call` in a process where nothing of the user's own is known.
    """
    (in_samples_copy / "nets_of_mine.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(in_samples_copy)
    line = "train normal --data digits --epochs 1 --model nets_of_mine:make --out mine"
    assert call(line).status == 0

    def fresh(line):
        sys.modules.pop("nets_of_mine", None)
        architecture.trusted_models.clear()
        return call(line)

    yield fresh
    sys.modules.pop("nets_of_mine", None)


def test_a_custom_model_is_built_if_it_is_named(own):
    without = own("report mine run --out page.html")
    assert without.status == 0 and "add --model 'nets_of_mine:make'" in without.err
    assert len(gallery_images(Page(Path("page.html")))) == 18
    done = own("report mine run --model nets_of_mine:make --out page.html")
    assert (done.status, done.err) == (0, "")
    assert len(gallery_images(Page(Path("page.html")))) == 36


@pytest.mark.parametrize("model", ["nets_of_mine:narrow", "nets_of_mine:none", "smal-cnn"])
def test_a_model_that_does_not_fit_is_refused(own, model):
    assert_refused(own, Path(), f"report mine --model {model}", model.partition(":")[0])


def test_options_that_are_not_needed_are_accepted(own):
    spoken = own("report run --model nets_of_mine:make")
    assert (spoken.status, spoken.err) == (0, "")
    assert len(gallery_images(Page(Path("run/report.html")))) == 18
    line = "evaluate mine --model nets_of_mine:make --attack fgsm --samples 10 --out verdict"
    assert own(line).status == 0
    shutil.rmtree("mine")
    done = own("report verdict --data-dir .")
    assert (done.status, done.err) == (0, "")
