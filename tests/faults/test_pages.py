"""Reports and exports in folders of others, on full disks, and of files that are no files."""

import errno
import os
import shutil

import pytest

import nuat
from nuat.cli.evaluate import evaluate_command  # noqa: F401  # the commands are loaded before a fault
from tests.command_line import tree

PAGES = {
    "report run": "run/report.html",
    "report run --out page.html": "page.html",
    "export run --state-dict net.pt": "net.pt",
    "export run --out new": "new",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with an evaluation; its folder is copied, never changed."""
    folder = tmp_path_factory.mktemp("made")
    row = nuat.get_recipe("nuat", "digits").with_epochs(1)
    nuat.fit(row.with_override("model", "small-cnn(width=4)"), out=folder / "run")
    model, test = nuat.load_model(folder / "run").model, nuat.load_dataset("digits").test
    scores = nuat.evaluate(model, test, row.ball, "fgsm", samples=10, out=folder / "run" / "e")
    nuat.checkpoints.run.Run.open(folder / "run").save_scores("test-fgsm", scores.to_dict())
    return folder


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def one_line(outcome, *words):
    lines = [line for line in outcome.err.splitlines() if not line.startswith("warning: ")]
    assert outcome.status == 2 and len(lines) == 1 and lines[0].startswith("error: "), outcome
    assert "Errno" not in lines[0]
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(("command", "target"), PAGES.items())
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_page_that_cannot_be_written_leaves_nothing(
    work, call, monkeypatch, command, target, number
):
    before = tree(work)
    fail = OSError(number, os.strerror(number))

    def flush(descriptor):
        raise fail

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", flush)
        one_line(call(command), os.strerror(number), target)
    assert {path: what for path, what in tree(work).items() if path != "new"} == before
    assert call(command).status == 0  # the same command goes on


@pytest.mark.parametrize(("command", "target"), PAGES.items())
def test_an_output_that_is_a_fifo_is_neither_replaced_nor_waited_for(work, call, command, target):
    os.mkfifo(work / target)
    one_line(call(command), target)
    assert os.lstat(work / target).st_mode & 0o170000 == 0o010000
    assert not list(work.rglob("*.partial"))


@pytest.mark.parametrize(("command", "target"), PAGES.items())
def test_an_output_that_is_a_link_is_not_followed(work, call, tmp_path, command, target):
    precious = tmp_path / "precious"
    precious.write_text("years")
    (work / target).symlink_to(precious)
    call(command)
    assert precious.read_text() == "years"


@pytest.mark.parametrize(
    "name", ["config.json", "scores/test-fgsm.json", "metrics.jsonl", "model.safetensors"]
)
@pytest.mark.parametrize("command", ["report run", "export run --out new"])
def test_an_input_that_is_a_fifo_is_not_waited_for(work, call, name, command):
    (work / "run" / name).unlink()
    os.mkfifo(work / "run" / name)
    outcome = call(command)
    assert outcome.status in (0, 2) and "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["config.json", "scores.json"])
def test_a_part_of_an_evaluation_that_is_a_fifo_is_not_waited_for(work, call, name):
    (work / "run" / "e" / name).unlink()
    os.mkfifo(work / "run" / "e" / name)
    one_line(call("report run/e"))


def test_scores_that_were_changed_are_named(work, call):
    file = work / "run" / "scores" / "test-fgsm.json"
    content = file.read_text()
    file.write_text(content.replace('"predicted": [', '"predicted": [1, ').replace(", 1]", "]", 1))
    assert content != file.read_text()
    for command in ("report run", "export run --out new"):
        one_line(call(command), "test-fgsm.json")
    assert not (work / "new").exists()


def test_a_page_in_place_of_a_folder_is_one_line(work, call):
    (work / "photos").mkdir()
    one_line(call("report run --out photos"), "photos is a folder, but must be a file")
    one_line(call("export run --state-dict photos"), "photos is a folder, but must be a file")
