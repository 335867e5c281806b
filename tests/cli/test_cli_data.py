"""Data on the command line: folders, archives, factories, --data-dir, --bad-images."""

import sys

import numpy
import pytest
from PIL import Image

import nuat

TINY = "--epochs 1 --model 'small-cnn(width=2)' --eps 4/255"


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch):
    monkeypatch.setenv("NUAT_DATA", "nowhere")  # and what --data-dir changes of it is put back


@pytest.fixture
def pets_folder(tmp_path, monkeypatch):
    """A folder with `my pets`, 2 x 12 images of which one is damaged, and `a.npz`."""
    monkeypatch.chdir(tmp_path)
    random = numpy.random.RandomState(0)
    for name in ("cat", "dog"):
        (tmp_path / "my pets" / name).mkdir(parents=True)
        for i in range(12):
            pixels = random.randint(256, size=(12, 15, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / "my pets" / name / f"{i}.png")
    (tmp_path / "my pets" / "dog" / "7.png").write_bytes(b"woof")
    x, y = random.randint(256, size=(40, 8, 8), dtype=numpy.uint8), numpy.arange(40) % 4
    numpy.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    return tmp_path


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_folder_is_trained_on_and_evaluated(pets_folder, call):
    refused = call(f"train nuat-wa --data 'folder:my pets(size=8)' {TINY}")
    assert refused.status == 2 and refused.out == "" and not (pets_folder / "runs").exists()
    (error,) = refused.err.strip().split("\n")
    assert "1 of 24 images in my pets cannot be read: dog/7.png" in error
    done = call(f"train nuat-wa --data 'folder:my pets(size=8)' {TINY} --bad-images skip")
    assert done.status == 0, done.err
    warning = "there is no recipe 'nuat-wa' for folder:my pets; using the one for cifar10"
    assert warning in done.err
    assert "left out: dog/7.png" in done.out and "held out of train" in done.out
    run = nuat.Run.open(pets_folder / "runs" / "nuat-wa-my pets-0")
    assert run.config["data"]["name"] == "folder:my pets(size=8, bad_images='skip')"
    assert run.config["data"]["classes"] == ["cat", "dog"] and run.config["channels"] == 3
    scored = call("evaluate 'runs/nuat-wa-my pets-0' --attack fgsm")
    assert scored.status == 0 and "left out: dog/7.png" in scored.out, scored.err
    assert len(run.scores["test-fgsm"]["indices"]) == run.config["data"]["test"]


@pytest.mark.filterwarnings("always::UserWarning")
def test_an_archive_and_a_factory(pets_folder, call):
    (pets_folder / "mine.py").write_text(
        "import torch\n\ndef make(n):\n    return torch.rand(n, 1, 8, 8), torch.arange(n) % 4\n"
    )
    for data, folder in (("npz:a.npz", "normal-a-0"), ("mine:make(n=40)", "normal-mine-make-0")):
        done = call(f"train normal --data '{data}' {TINY}")
        assert done.status == 0, done.err
        assert nuat.Run.open(pets_folder / "runs" / folder).config["data"]["name"] == data
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train nuat --data cifar10 --data-dir gone", "--data-dir gone: there is no such folder"),
        ("train nuat --data digits --bad-images skip", "--bad-images is for image files"),
        ("train nuat --data cifar10 --data-dir .", "looked for cifar10/cifar-10-batches-py"),
        ("train nuat-w --data folder:x", "did you mean 'nuat-wa'?"),
        ("download imagenet100", "unknown data set to download 'imagenet100'"),
    ],
)
def test_is_one_line_and_nothing_is_written(pets_folder, call, line, words):
    before = sorted(pets_folder.iterdir())
    outcome = call(line)
    assert outcome.status == 2 and outcome.out == "" and sorted(pets_folder.iterdir()) == before
    assert outcome.err.count("\n") == 1 and words in outcome.err


def test_what_there_is(call):
    listed = call("list data").out
    for words in ("folder:PATH", "npz:PATH", "cifar100", "imagenet100"):
        assert words in listed


@pytest.mark.filterwarnings("default:there is no recipe")
def test_a_normalization_is_printed_and_works_on_a_function(pets_folder, call):
    (pets_folder / "net.py").write_text(
        "from nuat.models import SmallCNN\n\n\ndef make(classes, channels):\n"
        "    return SmallCNN(classes, channels, 2)\n"
    )
    model = "--model 'net:make(normalize=mnist)' --import net.py"
    train = f"train normal --data npz:a.npz --epochs 1 --eps 4/255 {model} --out run"
    numbers = "the first layer normalizes the images, mean (0.1307), std (0.3081)"
    assert numbers in call(train).out
    done = call(f"evaluate run {model} --attack fgsm")
    assert done.status == 0 and numbers in done.out, done.err


@pytest.mark.filterwarnings("default:there is no recipe")
@pytest.mark.parametrize("classes", [(), ("none", "cat", "dog", "bird", "fish")])
def test_labels_that_count_from_1_are_noticed(pets_folder, call, classes):
    x = numpy.random.RandomState(0).randint(256, size=(40, 8, 8), dtype=numpy.uint8)
    names = {"classes": numpy.array(classes)} if classes else {}
    numpy.savez(pets_folder / "one.npz", x_train=x, y_train=numpy.arange(40) % 4 + 1, **names)
    (pets_folder / "ones.py").write_text(
        "import torch\n\ndef make():\n"
        "    return torch.rand(40, 1, 8, 8), torch.arange(40) % 4 + 1\n"
    )
    for data in ("npz:one.npz", "ones:make"):
        outcome = call(f"train normal --data {data} {TINY} --max-time 0s --out none")
        if not classes or data == "ones:make":
            assert outcome.status == 2, outcome
            assert "run from 1 to 4 and none is 0" in outcome.err and "subtract 1" in outcome.err
    sys.modules.pop("ones", None)
