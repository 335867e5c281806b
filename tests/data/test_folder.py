"""Folders of images: files, splits, color modes, crops, names."""

import math
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import nuat
from nuat import Augment, InMemoryDataset
from nuat.config.parsing import parse_call
from nuat.data import dataset_slug, image_io, with_bad_images
from nuat.data.imagenet100 import CLASSES
from nuat.training import trainer

CROPS = Augment(pad=2, flip=True, scale=(0.2, 1.0))


def picture(seed, width=40, height=30):
    """A smooth picture with random colors."""
    random = numpy.random.RandomState(seed)
    small = Image.fromarray(random.randint(256, size=(5, 5, 3), dtype=numpy.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def write_images(top, counts, size=(40, 30)):
    """Write pictures: `write_images(top, {"train/cat": 3})` writes three to train/cat."""
    seed = 0
    for place, count in counts.items():
        (top / place).mkdir(parents=True)
        for i in range(count):
            seed += 1
            picture(seed, *size).save(top / place / f"{i}.png")
    return top


@pytest.fixture
def photos(tmp_path):
    return write_images(
        tmp_path / "my photos (2)",
        {"train/cat": 12, "train/dog": 8, "val/cat": 3, "val/dog": 2, "test/cat": 2, "test/dog": 4},
    )


def sizes(data):
    return [len(data[name]) for name in ("train", "val", "test")]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


# splits and files


def test_three_splits_in_folders(photos):
    data = nuat.load_dataset(f"folder:{photos}(size=16)")
    assert sizes(data) == [20, 5, 6] and data.classes == ("cat", "dog") and data.notes == ()
    assert data.train.y.tolist() == [0] * 12 + [1] * 8 and data.test.y.tolist() == [0, 0] + [1] * 4
    assert data.name == f"folder:{photos}(size=16)" and data.train.channels == 3
    x, y = data.test.batch(torch.tensor([5, 0]))
    assert x.shape == (2, 3, 16, 16) and x.dtype == torch.float32 and y.tolist() == [1, 0]
    assert 0 <= float(x.min()) < float(x.max()) <= 1


@pytest.mark.parametrize(
    ("gone", "expected", "said"),
    [
        (["test"], [18, 2, 5], ["no test split", "val split is held out of train: 2 of 20"]),
        (["val"], [18, 2, 6], ["val split is held out of train: 2 of 20"]),
        (["val", "test"], [14, 2, 4], ["test split is held out", "val split is held out"]),
    ],
)
def test_missing_splits_are_held_out_with_a_note(photos, gone, expected, said):
    for name in gone:
        (photos / name).rename(photos / f".{name}")
    data = nuat.load_dataset(f"folder:{photos}(size=8)")
    assert sizes(data) == expected and len(data.notes) == len(said)
    for note, words in zip(data.notes, said, strict=True):
        assert words in note
    files = [set(data[name].files) for name in ("train", "val", "test")]
    assert sum(map(len, files)) == len(set.union(*files)), "no image is in two splits"
    for name in ("train", "val", "test"):
        assert set(data[name].y.tolist()) == {0, 1}
        labels = [data.classes.index(file.parent.name) for file in data[name].files]
        assert data[name].y.tolist() == labels
    again, other = (nuat.load_dataset(f"folder:{photos}(size=8, seed={seed})") for seed in (0, 1))
    assert again.val.files == data.val.files and other.val.files != data.val.files


def test_class_folders_without_splits(photos):
    data = nuat.load_dataset(f"folder:{photos / 'train'}(size=8, val=0.25, test=0.5)")
    assert sizes(data) == [7, 3, 10]


def test_other_files_and_missing_classes_are_noted(photos):
    (photos / "train" / "cat" / "README.txt").write_text("cats")
    (photos / "train" / "cat" / ".DS_Store").write_text("")
    (photos / "train" / "cat" / "more").mkdir()
    picture(99).save(photos / "train" / "cat" / "more" / "1.JPEG")
    write_images(photos, {"train/emu": 3})
    data = nuat.load_dataset(f"folder:{photos}(size=8)")
    assert len(data.train) == 24 and data.classes == ("cat", "dog", "emu")
    assert "1 files are not images: README.txt" in data.notes[0]
    assert all("no images of emu" in note for note in data.notes[1:]) and len(data.notes) == 3


def test_imagenet100_reads_only_its_classes(tmp_path, monkeypatch):
    assert len(set(CLASSES)) == 100 and list(CLASSES) == sorted(CLASSES)
    top = tmp_path / "imagenet"
    counts = {f"train/{name}": 2 for name in CLASSES} | {f"val/{name}": 1 for name in CLASSES}
    write_images(top, counts | {"train/n99999999": 1, "val/n99999999": 1}, size=(8, 8))
    monkeypatch.setenv("NUAT_DATA", str(tmp_path))
    data = nuat.load_dataset("imagenet100(size=8)")
    assert sizes(data) == [100, 100, 100] and data.classes == CLASSES
    assert data.test.y.tolist() == list(range(100))
    (top / "val" / CLASSES[3]).rename(top / "val" / "elsewhere")
    with pytest.raises(nuat.InputError, match=f"val lacks 1 of the 100 classes: {CLASSES[3]}"):
        nuat.load_dataset("imagenet100")


# how a file is read


FINE = {"quality": 100, "subsampling": 0}


def close(x, image, tolerance=2):
    return (
        float((x.float() - image_io.to_tensor(image.convert("RGB")).float()).abs().max())
        <= tolerance
    )


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "RGB"])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_every_mode_becomes_rgb(tmp_path, mode, ending):
    image = picture(3).convert(mode)
    try:
        image.save(tmp_path / f"a.{ending}", **(FINE if ending == "jpg" else {}))
    except OSError:
        pytest.skip(f"there is no {ending} of {mode}")
    found = image_io.read_rgb(tmp_path / f"a.{ending}")
    assert found.mode == "RGB" and not image_io.find_corruption(
        tmp_path / f"a.{ending}", decode=True
    )
    assert close(image_io.to_tensor(found), image, 12 if ending == "jpg" else 0)
    if mode in ("L", "LA", "1"):
        x = image_io.to_tensor(found)
        assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])


def test_a_palette_with_transparency(tmp_path):
    image = picture(3).quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes(range(0, 160, 20)))
    assert close(image_io.to_tensor(image_io.read_rgb(tmp_path / "a.png")), image, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(tmp_path, orientation):
    """All eight orientations show the same picture."""
    upright = picture(5)
    lay_down = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(lay_down[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(
        image_io.to_tensor(image_io.read_rgb(tmp_path / "a.png")), image_io.to_tensor(upright)
    )


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 40), (300, 20), (7, 7), (224, 224)])
def test_resize_center_crop(width, height):
    image, size = picture(1, width, height), 14
    found = image_io.to_tensor(image_io.resize_center_crop(image, size))
    assert found.shape == (3, size, size)
    scale = 16 / min(width, height)
    whole = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    assert torch.equal(found, image_io.to_tensor(whole)[:, top : top + size, left : left + size])


def test_random_resized_crop_boxes_have_the_right_area_and_aspect():
    own = torch.Generator().manual_seed(0)
    shares, ratios = [], []
    for _ in range(2000):
        left, top, right, bottom = image_io.random_resized_crop_box(400, 300, (0.08, 0.5), own)
        assert 0 <= left < right <= 400 and 0 <= top < bottom <= 300
        shares.append((right - left) * (bottom - top) / (400 * 300))
        ratios.append(math.log((right - left) / (bottom - top)))
    assert 0.078 < min(shares) < 0.1 and 0.48 < max(shares) < 0.51
    assert abs(sum(shares) / 2000 - 0.29) < 0.01, "uniform in the area"
    assert abs(sum(ratios) / 2000) < 0.01 and max(map(abs, ratios)) < math.log(4 / 3) + 0.02
    assert image_io.random_resized_crop_box(1000, 10, (1.0, 1.0), own) == (493, 0, 506, 10), (
        "what fits, in the middle"
    )
    assert image_io.random_resized_crop_box(10, 1000, (1.0, 1.0), own) == (0, 493, 10, 506)


# the stream


def test_batches_do_not_depend_on_the_number_of_workers(photos):
    batches = []
    for workers in (0, 1, 2):
        torch.manual_seed(workers)
        train = nuat.load_dataset(f"folder:{photos}(size=12, workers={workers})").train
        batches.append(list(train.shuffled_batches(6, 5, CROPS)))
        assert torch.initial_seed() == workers and float(torch.rand(1)) == float(
            torch.rand(1, generator=torch.Generator().manual_seed(workers))
        ), "the global generator is left alone"
    assert [len(y) for _, y in batches[0]] == [6, 6, 6, 2]
    assert same(batches[0], batches[1]) and same(batches[0], batches[2])


def test_crops_are_a_function_of_seed_and_image(photos):
    train = nuat.load_dataset(f"folder:{photos}(size=12, workers=0)").train
    whole = list(train.shuffled_batches(6, 5, CROPS))
    for start in (1, 3, 4):
        assert same(list(train.shuffled_batches(6, 5, CROPS, start=start)), whole[start:])
    share = slice(1, None, 2)
    shared = [(x[share], y[share]) for x, y in whole]
    assert same(list(train.shuffled_inputs(6, 5, CROPS, share=share)), shared)
    one, other = ({} for _ in range(2))
    for batches, size in ((one, 6), (other, 20)):
        x, y = (
            torch.cat(part) for part in zip(*train.shuffled_batches(size, 5, CROPS), strict=True)
        )
        batches["x"], batches["y"] = x, y
    assert torch.equal(one["x"], other["x"]), "whatever the batch size"
    assert not same(list(train.shuffled_batches(6, 6, CROPS)), whole)
    assert not torch.equal(train.read(0, 5, CROPS), train.read(0, 6, CROPS)), (
        "another epoch, another crop"
    )


def test_crops_equal_a_plain_reference(photos):
    """The reference works image by image with numpy."""
    train = nuat.load_dataset(f"folder:{photos}(size=12, workers=0)").train
    for place in range(len(train)):
        own = torch.Generator().manual_seed(nuat.rng.derive_seed(9, "image", place))
        with Image.open(train.files[place]) as image:
            box = image_io.random_resized_crop_box(*image.size, CROPS.scale, own)
            window = image.crop(box)
        across, down = (int(torch.randint(5, (1,), generator=own)) for _ in range(2))
        tossed = float(torch.rand(1, generator=own))
        pixels = numpy.asarray(window.resize((12, 12), Image.Resampling.BILINEAR))
        pixels = numpy.pad(pixels, ((2, 2), (2, 2), (0, 0)))[down : down + 12, across : across + 12]
        pixels = pixels[:, ::-1] if tossed < 0.5 else pixels
        found = train.read(place, 9, CROPS).permute(1, 2, 0).numpy()
        assert numpy.array_equal(found, pixels)


def test_evaluation_images_do_not_depend_on_the_order(photos):
    test = nuat.load_dataset(f"folder:{photos}(size=12, workers=2)").test
    ids, x, y = (torch.cat(part) for part in zip(*test.batches(4), strict=True))
    assert ids.tolist() == list(range(6)) and torch.equal(y, test.y)
    assert torch.equal(test.batch(torch.tensor([4, 1, 1]))[0], x[[4, 1, 1]])
    part = test.subset(torch.tensor([5, 2]))
    assert torch.equal(part.batch(torch.arange(2))[0], x[[5, 2]]) and part.y.tolist() == [1, 1]


def test_a_file_damaged_after_loading_is_named(photos):
    train = nuat.load_dataset(f"folder:{photos}(size=12, workers=2)").train
    train.files[3].write_bytes(b"gone")
    with pytest.raises(nuat.InputError, match=r"cat/11\.png cannot be read") as error:
        list(train.shuffled_batches(6, 5, CROPS))
    assert "\n" not in str(error.value)


# training


def test_a_resumed_run_has_the_same_weights(photos, tmp_path, monkeypatch):
    """The run stops in the second epoch and resumes with another number of workers."""
    row = nuat.Recipe(
        name="nuat",
        method=nuat.NuAT(nuat.Linf(4 / 255), 1.0),
        data="folder",
        model="small-cnn(width=2)",
        epochs=2,
        batch_size=4,
        augment=CROPS,
    )
    text = f"folder:{photos}(size=12)"
    monkeypatch.setenv("NUAT_WORKERS", "0")
    whole = nuat.fit(row, data=text, out=tmp_path / "whole")
    with monkeypatch.context() as stopped:
        stopped.setattr(trainer.Trainer, "time_is_up", property(lambda run: run.batches_done >= 7))
        part = nuat.fit(row, data=text, out=tmp_path / "part")
    assert not part.finished and len(part.metrics) == 1
    monkeypatch.setenv("NUAT_WORKERS", "2")
    again = nuat.fit(row, data=text, out=tmp_path / "part")
    assert again.finished
    one, other = whole.weights(), again.weights()
    assert all(torch.equal(one[key], other[key]) for key in one)
    f = nuat.load_model(again.path).model
    scores = nuat.evaluate(f, nuat.load_dataset(text).test, nuat.Linf(4 / 255), "fgsm")
    x, y = nuat.load_dataset(text).test.batch(torch.arange(6))
    memory = nuat.evaluate(f, InMemoryDataset(x, y), nuat.Linf(4 / 255), "fgsm")
    assert scores.predicted == memory.predicted and scores.robust == memory.robust


# names


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("folder:/a b/c (2)", "folder:/a b/c (2)", {}),
        ("folder:/a b/c (2)(size=3)", "folder:/a b/c (2)", {"size": 3}),
        ("folder:a()", "folder:a", {}),
        ("npz:C:/x.npz (seed=1)", "npz:C:/x.npz", {"seed": 1}),
        ("folder:a(bad_images='skip')", "folder:a", {"bad_images": "skip"}),
    ],
)
def test_paths_in_names(text, name, settings):
    assert parse_call(text) == (name, settings)


def test_dataset_slug_and_with_bad_images():
    assert (
        dataset_slug("folder:~/my/photos(size=64)") == "photos"
        and dataset_slug("cifar10(train=10)") == "cifar10"
    )
    assert (
        dataset_slug("npz:x/blood.npz") == "blood"
        and dataset_slug("own.data:make") == "own.data-make"
    )
    assert with_bad_images("folder:a b(size=8)", "skip") == "folder:a b(size=8, bad_images='skip')"
    assert with_bad_images("cifar10", None) == "cifar10"
    with pytest.raises(nuat.InputError, match="--bad-images is for image files"):
        with_bad_images("cifar10", "skip")


@pytest.mark.parametrize(
    ("text", "lender", "augment"),
    [
        ("folder:x(size=64)", "cifar10", Augment(flip=True, scale=(0.25, 1.0))),
        ("folder:x", "imagenet100", Augment(flip=True, scale=(0.08, 1.0))),
        ("npz:x.npz", "cifar10", Augment(pad=4, flip=True)),
        ("own:make", "cifar10", Augment(pad=4, flip=True)),
    ],
)
def test_a_fallback_recipe_is_used_with_a_warning(text, lender, augment):
    with pytest.warns(UserWarning, match=f"there is no recipe 'nuat-wa' .*the one for {lender}"):
        row = nuat.get_recipe("nuat-wa", text)
    assert row.method == nuat.get_recipe("nuat-wa", lender).method and row.augment == augment
    assert row.data == text and f"fallback from {lender}" in row.note and row.source == "ours"


def test_a_typing_error_has_no_fallback():
    for name, data in (("nuat-wa", "cifar"), ("nuat-w", "folder:x"), ("nuat-w", "cifar100")):
        with pytest.raises(nuat.InputError, match="unknown"):
            nuat.get_recipe(name, data)


def test_real_photographs(real):
    data = nuat.load_dataset(f"folder:{Path(real) / 'photos'}(size=32)")
    assert sizes(data) == [360, 40, 200] and len(data.classes) == 10
    grey = data.train.subset(
        torch.tensor([i for i, file in enumerate(data.train.files) if Image.open(file).mode == "L"])
    )
    assert len(grey) and all(
        torch.equal(x[0], x[1]) for x in grey.batch(torch.arange(len(grey)))[0]
    )


def test_named_classes_are_read_and_others_are_ignored(tmp_path):
    write_images(tmp_path, {"cat": 4, "dog": 4, "emu": 6})
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8, classes=('emu', 'cat'))")
    assert data.classes == ("emu", "cat")
    labels = torch.cat([data[split].y for split in ("train", "val", "test")])
    assert labels.bincount().tolist() == [6, 4]
