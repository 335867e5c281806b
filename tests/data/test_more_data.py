"""SVHN and Tiny-ImageNet, from small files in their official layouts."""

import hashlib
import sys

import numpy
import pytest
import torch
from PIL import Image

import nuat
from nuat import InputError
from nuat.data import svhn as svhn_module


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """2,000 + 30 images; the first three pixels of the first row hold the number of an image."""
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path / "svhn"
    folder.mkdir()
    for name, count in (("train", 2000), ("test", 30)):
        ids = numpy.arange(count)
        x = numpy.zeros((32, 32, 3, count), numpy.uint8)
        x[0, 0, 2], x[0, 1, 2], x[1, 0, 1] = ids % 256, ids // 256, 9
        labels = (ids % 10 + 1).astype(numpy.uint8)[:, None]
        scipy_io.savemat(folder / f"{name}_32x32.mat", {"X": x, "y": labels}, do_compression=True)
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    monkeypatch.setattr(svhn_module, "SVHN_MD5", sums)
    monkeypatch.setenv("NUAT_DATA", str(tmp_path))
    return folder


def test_svhn_is_read_and_split(svhn):
    data = nuat.load_dataset("svhn")
    assert [len(data[name]) for name in ("train", "val", "test")] == [1000, 1000, 30]
    assert data.classes == tuple("0123456789")
    x = data.train.x.long()
    assert x.shape == (1000, 3, 32, 32) and data.train.x.dtype == torch.uint8
    assert (x[:, 1, 1, 0] == 9).all(), "height before width"
    ids = x[:, 2, 0, 0] + 256 * x[:, 2, 0, 1]
    assert torch.equal(ids, torch.arange(1000, 2000)), "val has the first 100 of each class"
    assert torch.equal(data.train.y, (ids % 10 + 1) % 10), "the digit 0 has the label 10 there"


def test_the_md5_sums_of_the_official_svhn_files():
    """They are published in torchvision.datasets."""
    assert svhn_module.SVHN_MD5["train_32x32.mat"] == "e26dedcc434d2e4c54c9b2d4a06d8373"
    assert svhn_module.SVHN_MD5["test_32x32.mat"] == "eb5a983be6a315427106f1b164d9cef3"


def test_svhn_of_other_content_or_without_scipy_is_refused(svhn, monkeypatch):
    (svhn / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(InputError, match=r"test_32x32.mat is not the official file"):
        nuat.load_dataset("svhn")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"scipy.io is not installed: pip install 'nuat\[demo\]'"):
        nuat.load_dataset("svhn")


CLASSES = ("n01443537", "n01629819", "n01641577")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """13 images of each of 3 classes and 6 published val images; a pixel is class and number."""
    top = tmp_path / "tiny-imagenet-200"

    def save(file, label, number):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * label, 10 * number, 0)).save(file, quality=100)

    for label, name in enumerate(CLASSES):
        for number in range(13):
            save(top / "train" / name / "images" / f"{name}_{number}.JPEG", label, number)
    lines = []
    for number in range(6):
        save(top / "val" / "images" / f"val_{number}.JPEG", number % 3, number)
        lines.append(f"val_{number}.JPEG\t{CLASSES[number % 3]}\t0\t32\t44\t62\n")
    (top / "val" / "val_annotations.txt").write_text("".join(lines))
    (top / "wnids.txt").write_text("".join(f"{name}\n" for name in reversed(CLASSES)))
    monkeypatch.setenv("NUAT_DATA", str(tmp_path))
    return top


def test_tiny_imagenet_is_read_and_split(tiny):
    gray = tiny / "train" / CLASSES[0] / "images" / f"{CLASSES[0]}_12.JPEG"
    Image.new("L", (64, 64), 120).save(gray, quality=100)
    data = nuat.load_dataset("tiny-imagenet")
    assert [len(data[name]) for name in ("train", "val", "test")] == [9, 30, 6]
    assert data.classes == CLASSES, "sorted, in whatever order wnids.txt has them"
    assert data.train.x.shape == (9, 3, 64, 64) and data.train.x.dtype == torch.uint8
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    numbers = data.train.x[:, 1, 5, 5].float().div(10).round().tolist()
    assert numbers == [10, 11, 12] * 3, "val has the first 10 of each class, by number"
    assert data.train.x[2, 0, 0, 0] == 120, "gray images become RGB"
    assert data.test.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.test.x[:, 1, 5, 5].float().div(10).round().tolist() == list(range(6))


def test_an_incomplete_tiny_imagenet_is_refused(tiny):
    annotations = tiny / "val" / "val_annotations.txt"
    official = annotations.read_text()
    for line in ("val_9.JPEG\tn01443537\t0", "val_0.JPEG\tn00000000\t0", "val_0.JPEG", ""):
        annotations.write_text(f"{official}{line}\n")
        with pytest.raises(InputError, match=r"names no image in .*images, or no class"):
            nuat.load_dataset("tiny-imagenet")
    annotations.unlink()
    with pytest.raises(InputError, match=r"val_annotations.txt is missing"):
        nuat.load_dataset("tiny-imagenet")
    annotations.write_text(official)
    Image.new("RGB", (32, 64)).save(tiny / "val" / "images" / "val_0.JPEG")
    with pytest.raises(InputError, match=r"val_0.JPEG is \(32, 64\), but must be 64x64"):
        nuat.load_dataset("tiny-imagenet")
    (tiny / "wnids.txt").write_text("n01443537\nn02124075\n")
    with pytest.raises(InputError, match="no images of 1 of the 2 classes: n02124075"):
        nuat.load_dataset("tiny-imagenet")
    (tiny / "wnids.txt").unlink()
    with pytest.raises(InputError, match=r"wnids.txt is missing: unpack"):
        nuat.load_dataset("tiny-imagenet")
