"""Splits, classes and hidden folders are known by name, in the spellings that people use."""

import numpy
import pytest
import torch

import nuat
from nuat import InputError
from nuat.data import as_splits
from nuat.data.names import is_hidden, match_labels, split_of
from tests.data.test_folder import sizes, write_images

X = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAIN training Training train_set train-images train2017 TrainData"),
        ("val", "val Valid VALIDATION validation_set val2017 dev validate"),
        ("test", "test Testing TEST test_set test1 test-images"),
        (None, "cat trainer valley testament unlabeled attrain retest train_cat devil"),
    ],
)
def test_the_name_of_a_split(split, names):
    assert {split_of(name) for name in names.split()} == {split}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VALID", "TEST"),
        ("train-set", "dev", "test1"),
    ],
)
def test_split_folders_in_any_spelling(tmp_path, train, val, test):
    folders = {f"{train}/cat": 6, f"{train}/dog": 6, f"{val}/cat": 2, f"{val}/dog": 2}
    write_images(tmp_path, folders | {f"{test}/cat": 3, f"{test}/dog": 1})
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8)")
    assert data.classes == ("cat", "dog") and sizes(data) == [12, 4, 4] and data.notes == ()


def test_a_class_folder_of_another_spelling_is_the_same_class(tmp_path):
    write_images(tmp_path, {"train/Sea Lion": 9, "train/cat": 9, "test/sea_lion": 2, "test/CAT": 1})
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8)")
    names = [file.parent.name for file in data.test.files]
    assert data.classes == ("Sea Lion", "cat")
    assert dict(zip(names, data.test.y.tolist(), strict=True)) == {"sea_lion": 0, "CAT": 1}


def test_folders_beside_the_splits_are_noted(tmp_path):
    write_images(tmp_path, {"Train/cat": 9, "Train/dog": 9, "samples": 2})
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8)")
    assert data.classes == ("cat", "dog") and "ignored beside the splits: samples" in data.notes[0]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("seg_train/a", "seg_test/a"), "seg_test, seg_train, which look like splits .* rename"),
        (("bottle/train", "bottle/test", "nut/train"), "bottle holds test, train, which look like"),
        (("data/Train/a", "data/Test/a", "more/x"), "data holds Test, Train, which look like spl"),
        (("train/a", "train/b", "Training/a"), "holds both Training and train: keep one of them"),
        (("train", "bus", "car"), "holds train beside bus, car, but no classes in it"),
        (("Test/a", "Test/b"), "holds Test, but no train folder"),
    ],
)
def test_splits_are_never_taken_for_classes(tmp_path, folders, message):
    write_images(tmp_path, dict.fromkeys(folders, 4))
    with pytest.raises(InputError, match=message):
        nuat.load_dataset(f"folder:{tmp_path}(size=8)")


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", "@eaDir", "a/.cache/b"])
def test_hidden_folders_are_ignored_at_every_level(tmp_path, hidden):
    write_images(tmp_path, {"train/cat": 9, "train/dog": 9, "test/cat": 2, "test/dog": 2})
    before = nuat.load_dataset(f"folder:{tmp_path}(size=8)")
    for place in ("train/cat", "test/dog"):
        write_images(tmp_path / place, {hidden: 2})
    if "/" not in hidden:
        write_images(tmp_path, {f"train/{hidden}": 2, f"{hidden}/train": 1})
    assert nuat.load_dataset(f"folder:{tmp_path}(size=8)").notes == before.notes
    assert sizes(nuat.load_dataset(f"folder:{tmp_path}(size=8)")) == sizes(before)
    assert all(
        is_hidden(part) == (part in hidden and part not in "ab") for part in hidden.split("/")
    )


def test_the_path_of_the_data_may_contain_a_hidden_folder(tmp_path):
    write_images(tmp_path / ".data", {"cat": 9, "dog": 9})
    assert len(nuat.load_dataset(f"folder:{tmp_path}/.data(size=8)").train) == 12


@pytest.mark.parametrize("val", ["x_valid y_valid", "X_VALIDATION y_dev", "val_images val_labels"])
@pytest.mark.parametrize("test", ["X_Test Y_Test", "testing_images testing_labels"])
def test_arrays_of_an_archive_in_any_spelling(tmp_path, val, test):
    pairs = {"x_train y_train": 12, val: 6, test: 3}
    names = {
        pair.split()[k]: part[:n] for pair, n in pairs.items() for k, part in enumerate((X, Y))
    }
    numpy.savez(tmp_path / "a.npz", **{name: part.numpy() for name, part in names.items()})
    data = nuat.load_dataset(f"npz:{tmp_path}/a.npz")
    assert sizes(data) == [12, 6, 3] and data.notes == ()


def test_images_without_labels_are_refused(tmp_path):
    numpy.savez(tmp_path / "a.npz", x_train=X.numpy(), y_train=Y.numpy(), x_test=X.numpy())
    with pytest.raises(InputError, match=r"holds x_test, but no labels \(y_test\) for it"):
        nuat.load_dataset(f"npz:{tmp_path}/a.npz")
    numpy.savez(tmp_path / "a.npz", x_train=X.numpy(), y_train=Y.numpy(), train_images=X.numpy())
    with pytest.raises(InputError, match="holds both x_train and train_images"):
        nuat.load_dataset(f"npz:{tmp_path}/a.npz")


def test_the_keys_of_a_mapping_in_any_spelling():
    data = as_splits({"Train": (X, Y), "validation": (X[:6], Y[:6]), "TEST": (X[:3], Y[:3])})
    assert sizes(data) == [12, 6, 3]


def test_labels_are_matched_by_name():
    assert match_labels(["Dog", "cat"], ["cat", "dog"]) == [1, 0]
    assert match_labels(["sea-lion"], ["cat", "Sea Lion"]) == [1]
    assert match_labels(["a", "A"], ["A", "a"]) == [1, 0]
    assert match_labels(["B", "A"], ["A", "a", "b"]) is None
    assert match_labels(["Cat", "cat"], ["cat", "dog"]) is None
    assert match_labels(["cat", "emu"], ["cat", "dog"]) is None
