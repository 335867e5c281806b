"""Calling the command line in a test, and a folder of files to call it on."""

import hashlib
import pickle
import shlex
import shutil
import sys
from dataclasses import dataclass

import pytest
import torch

import nuat
from nuat import cli
from nuat.checkpoints.weights_io import read_weights, write_weights

TINY = "--epochs 1 --set 'model=small-cnn(width=4)'"
MARK = "code of a pickle was run"


@dataclass
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capsys, tmp_path_factory):
    """`call("train nuat --out x")`: what `nuat train nuat --out x` does, in this process.

    An exception that reaches the user as a traceback reaches the test.
    """

    folder = str(tmp_path_factory.getbasetemp())

    def run(line):
        capsys.readouterr()
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(folder):
                monkeypatch.delitem(sys.modules, name)  # what --import of another test has left
        monkeypatch.setattr(sys, "argv", ["nuat", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(int(end.value.code or 0), *capsys.readouterr())

    return run


class Code:
    """Unpickled, it leaves a mark."""

    def __reduce__(self):
        return exec, (f"open({MARK!r}, 'w').write('x')",)


@pytest.fixture(scope="module")
def sample_files(tmp_path_factory):
    """A folder with a run, its weights in other forms, and files that are no weights."""
    folder = tmp_path_factory.mktemp("samples")
    row = (
        nuat.get_recipe("nuat", "digits")
        .with_epochs(1)
        .with_override("model", "small-cnn(width=4)")
    )
    nuat.fit(row, out=folder / "run")
    weights, about = read_weights(folder / "run" / "model.safetensors")
    torch.save(weights, folder / "weights.pt")
    torch.save({"state_dict": weights}, folder / "nested.pt")
    torch.save({"weight": Code()}, folder / "code-zip.pt")
    (folder / "code.pt").write_bytes(pickle.dumps(Code(), protocol=2))
    write_weights(folder / "untold.safetensors", weights, about | {"ball": "Linf(0.1"})
    (folder / "text.pt").write_text("dear diary\n")
    (folder / "text.safetensors").write_text("dear diary\n")
    (folder / "empty.pt").write_text("")
    (folder / "half.pt").write_bytes((folder / "weights.pt").read_bytes()[:3000])
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.tex").write_text("years of work")
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (folder / "torn").mkdir()
    (folder / "torn" / "config.json").write_text('{"recipe": ')
    return folder


@pytest.fixture
def in_samples(sample_files, monkeypatch):
    """The sample folder as the working directory."""
    monkeypatch.chdir(sample_files)
    return sample_files


@pytest.fixture
def in_empty(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_samples_copy(sample_files, tmp_path, monkeypatch):
    """A copy of it as the working directory, for commands that may do what they should not."""
    shutil.copytree(sample_files, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def tree(folder):
    """Every file and folder, and what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def assert_refused(call, folder, line, *words, warned=False):
    before = tree(folder)
    outcome = call(line)
    lines = outcome.err.splitlines()
    if warned:
        lines = [text for text in lines if not text.startswith("warning: ")]
    assert outcome.status == 2, outcome
    assert len(lines) == 1 and lines[0].startswith("error: "), outcome.err
    for word in words:
        assert word in lines[0]
    assert tree(folder) == before
    return lines[0]
