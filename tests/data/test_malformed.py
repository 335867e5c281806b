"""Invalid data: every error is one clear line."""

import gzip
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import nuat
from nuat import InputError
from nuat.data import as_splits
from nuat.data import mnist as mnist_module

Case = Callable[[Path], object]
CASES: dict[str, tuple[Case, str]] = {}


def case(words: str) -> Callable[[Case], Case]:
    """Register a function that raises InputError in an empty folder with a message like `words`."""

    def add(wrong: Case) -> Case:
        CASES[wrong.__name__] = wrong, words
        return wrong

    return add


def picture(path: Path, mode: str = "RGB", size: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = numpy.random.RandomState(0).randint(256, size=(size, size, 3), dtype=numpy.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def photos(top: Path, count: int = 4) -> Path:
    for name in ("cat", "dog"):
        for i in range(count):
            picture(top / "train" / name / f"{i}.jpg")
    return top


def read(top: Path, settings: str = "size=8") -> object:
    return nuat.load_dataset(f"folder:{top}({settings})")


# folders


@case("does not exist; lay it out as train/CLASS")
def a_folder_that_is_not_there(here):
    return read(here / "nowhere")


@case("is a file, not a folder")
def a_file_for_a_folder(here):
    return read(picture(here / "a.jpg"))


@case("folder needs a path: folder:PATH")
def no_path(here):
    return nuat.load_dataset("folder")


@case("holds no class folders: lay it out")
def an_empty_folder(here):
    return read(here)


@case(r"holds no class folders \(it holds images, but not in class folders\)")
def images_without_class_folders(here):
    return read(picture(here / "train" / "a.jpg").parents[1])


@case("holds one class only, 'cat': a classifier needs two")
def one_class(here):
    return read(picture(here / "train" / "cat" / "a.jpg").parents[2])


@case("class folder .*emu holds no images .*jpg")
def an_empty_class(here):
    (photos(here) / "train" / "emu").mkdir()
    return read(here)


@case("val has the class 'emu', which the training images do not have; their classes are cat, dog")
def a_class_only_in_val(here):
    for name in ("cat", "emu"):
        picture(photos(here) / "val" / name / "a.jpg")
    return read(here)


@case("holds val, but no train folder")
def no_train_folder(here):
    (photos(here) / "train").rename(here / "val")
    return read(here)


@case("holds both val and valid: keep one of them")
def two_val_folders(here):
    for name in ("val", "valid"):
        picture(photos(here) / name / "cat" / "a.jpg")
    return read(here)


@case(r"class 0 \(cat\) has only 1 image left, so none can be held out")
def a_class_of_one_image(here):
    return read(photos(here, count=1))


@case(r"1 of 8 images in .*cat/3.jpg \(.*truncated.*\)\. Repair.*--bad-images skip")
def a_truncated_jpeg(here):
    file = photos(here) / "train" / "cat" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    return read(here)


@case(r"cat/3.png \(.*\)")
def a_truncated_png(here):
    file = picture(photos(here) / "train" / "cat" / "3.png", size=64)
    file.write_bytes(file.read_bytes()[:-3000])
    return read(here)


@case(r"2 of 10 images .*a.jpg \(cannot identify image file\), train/cat/b.png")
def files_that_are_not_images(here):
    (photos(here) / "train" / "cat" / "a.jpg").write_text("<html>not found</html>")
    (here / "train" / "cat" / "b.png").write_bytes(b"")
    return read(here)


@case("train/cat/deep.png .*more than 8 bits per channel.*convert it to 8 bits")
def a_16_bit_grey_png(here):
    deep = Image.fromarray(numpy.arange(1024, dtype=numpy.uint16).reshape(32, 32) * 60)
    deep.save(photos(here) / "train" / "cat" / "deep.png")
    return read(here)


@case("train/cat/deep.png .*more than 8 bits per channel")
def a_16_bit_color_png(here):
    """Pillow reads such a file as 8-bit RGB."""
    import struct
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + bytes(32 * 6) for _ in range(32))
    parts = chunk(b"IHDR", struct.pack(">2I5B", 32, 32, 16, 2, 0, 0, 0))
    parts += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    target = photos(here) / "train" / "cat" / "deep.png"
    target.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert Image.open(target).mode == "RGB"
    return read(here)


@case("train/cat/f.tif .*more than 8 bits per channel")
def a_float_tiff(here):
    Image.fromarray(numpy.zeros((9, 9), numpy.float32)).save(
        photos(here) / "train" / "cat" / "f.tif"
    )
    return read(here)


@case("no image of 'cat' can be read")
def nothing_left_of_a_class(here):
    for file in (photos(here) / "train" / "cat").iterdir():
        file.write_bytes(b"")
    return read(here, "bad_images='skip'")


@case("unknown value of bad_images 'ignore'.*error, skip")
def an_unknown_value_of_bad_images(here):
    return read(photos(here), "bad_images='ignore'")


@case("size is 0, but must be a whole number from 1")
def no_pixels(here):
    return read(photos(here), "size=0")


@case("held-out fraction is 1.5, but must lie between 0 and 1")
def more_than_all_for_validation(here):
    return read(photos(here), "val=1.5")


@case("NUAT_WORKERS is 'two', but must be a whole number")
def a_number_of_workers_in_words(here):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUAT_WORKERS", "two")
        return read(photos(here))


# tensors

X, Y = torch.rand(12, 1, 4, 4), torch.arange(12) % 3


def given(x, y, **more):
    return as_splits({"train": (x, y), "test": (x, y), **more}, "own:make")


@case(r"own:make, train split: labels run from 1 to 3.*do they count from 1\?")
def labels_from_1(here):
    return given(X, Y + 1, classes="abc")


@case(r"must lie in \[0, 1\], but run from .*divide by 255\?")
def floats_up_to_255(here):
    return given(X * 255, Y)


@case(r"must lie in \[0, 1\].*normalized\?")
def normalized_images(here):
    return given(X * 4 - 2, Y)


@case("images of the test split have shape .*3, 4, 4.*train split .*1, 4, 4")
def color_in_one_split(here):
    return given(X, Y, test=(X.expand(-1, 3, -1, -1), Y))


@case("mapping with the keys first, test; it should have train")
def a_split_by_another_name(here):
    return as_splits({"first": (X, Y), "test": (X, Y)})


@case("mapping with the keys train, Training; it should have train")
def a_split_twice(here):
    return as_splits({"train": (X, Y), "Training": (X, Y)})


@case("given as a int, not as a pair of tensors")
def a_number_for_images(here):
    return as_splits(3)


@case("is empty; was an iterator consumed before")
def a_consumed_iterator(here):
    return as_splits(iter(()))


@case("labels are .*float32 and not all of them are whole numbers")
def labels_that_are_fractions(here):
    return given(X, Y + 0.5)


@case("has 1 class.*a classifier needs two")
def one_class_in_tensors(here):
    return given(X, Y * 0)


@case("image 0 of the Dataset: a label is the str 'a', not a whole number")
def labels_in_words(here):
    class Words(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return X[i], "abc"[Y[i]]

    return as_splits(Words())


@case(r"scale is \(0.5,\), but must be \(low, high\)")
def half_a_scale(here):
    return nuat.Augment(scale=(0.5,))


# archives


def npz(here, **arrays):
    numpy.savez(here / "a.npz", **arrays)
    return nuat.load_dataset(f"npz:{here}/a.npz")


@case("there is no file .*a.npz")
def an_archive_that_is_not_there(here):
    return nuat.load_dataset(f"npz:{here}/a.npz")


@case("holds images, labels; it should hold x_train and y_train")
def an_archive_of_other_names(here):
    return npz(here, images=X.numpy(), labels=Y.numpy())


@case("an archive of arrays of numbers, as numpy.savez writes it: .*allow_pickle")
def objects_in_an_archive(here):
    return npz(here, x_train=numpy.array([{1: 2}], dtype=object), y_train=Y.numpy())


@case("an archive of arrays of numbers, as numpy.savez writes it: .*pickle")
def a_pickle_named_like_an_archive(here):
    (here / "a.npz").write_bytes(pickle.dumps({"x_train": X}))
    return nuat.load_dataset(f"npz:{here}/a.npz")


@case("holds one array; save an archive with numpy.savez")
def a_single_array(here):
    with (here / "a.npz").open("wb") as file:
        numpy.save(file, X.numpy())
    return nuat.load_dataset(f"npz:{here}/a.npz")


@case("cannot be read as an archive of arrays of numbers")
def half_an_archive(here):
    numpy.savez(here / "a.npz", x_train=X.numpy(), y_train=Y.numpy())
    (here / "a.npz").write_bytes((here / "a.npz").read_bytes()[:-100])
    return nuat.load_dataset(f"npz:{here}/a.npz")


@case(r"x_train is of shape \[12, 5, 4, 4\], but must be .*1 or 3 channels")
def five_channels(here):
    return npz(here, x_train=torch.rand(12, 5, 4, 4).numpy(), y_train=Y.numpy())


@case(r"train split: images are torch.int64 .*, not floats \[B, C, H, W\] or uint8")
def images_of_int64(here):
    return npz(here, x_train=X.long().numpy(), y_train=Y.numpy())


@case(r"train split: labels are .*int64 of shape \[12, 3\], .* take y.argmax\(1\)")
def one_hot_labels(here):
    return npz(here, x_train=X.numpy(), y_train=torch.eye(3)[Y].long().numpy())


@case("a.npz has a label 1000000000, but labels are below 1,000,000")
def a_label_of_a_billion_in_an_archive(here):
    return npz(here, x_train=X.numpy(), y_train=torch.where(Y == 2, 10**9, Y).numpy())


@case("own:make has a label 1000000000, but labels are below 1,000,000")
def a_label_of_a_billion_in_a_tensor(here):
    return given(X, torch.where(Y == 2, 10**9, Y))


@case(r"train split: labels .*\[9\], not integers \[12\]")
def fewer_labels_than_images(here):
    return npz(here, x_train=X.numpy(), y_train=Y.numpy()[:9], x_test=X.numpy(), y_test=Y.numpy())


# official files


@case("t10k-labels-idx1-ubyte.gz is not the official file .*MD5 checksum differs")
def a_checksum_off_by_one_byte(here):
    raw = here / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sums = {}
    for name in mnist_module.MNIST_MD5:
        count, size = (60_000 if "train" in name else 10_000), (784 if "images" in name else 1)
        header = 16 if size > 1 else 8
        (raw / name).write_bytes(gzip.compress(bytes(header + count * size), 1))
        sums[name] = hashlib.md5((raw / name).read_bytes()).hexdigest()
    last = raw / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUAT_DATA", str(here))
        patch.setattr(mnist_module, "MNIST_MD5", sums)
        return nuat.load_dataset("mnist")


@case("cifar100 was not found; looked for .*`nuat download cifar100`.*toronto.*--data-dir")
def a_data_set_that_is_not_there(here):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUAT_DATA", str(here))
        return nuat.load_dataset("cifar100")


@case("imagenet was not found; .*Get the training .*image-net.org")
def an_imagenet_that_is_not_there(here):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUAT_DATA", str(here))
        return nuat.load_dataset("imagenet100")


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_one_clear_line(name, tmp_path):
    wrong, words = CASES[name]
    with pytest.raises(InputError, match=words) as error:
        wrong(tmp_path)
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and 20 < len(text) < 700


def test_bad_images_are_skipped(tmp_path):
    """They are named and counted; one of them is found only by decoding."""
    photos(tmp_path)
    (tmp_path / "train" / "cat" / "a.jpg").write_text("no image")
    file = picture(tmp_path / "train" / "dog" / "x.jpg", size=64)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    data = nuat.load_dataset(f"folder:{tmp_path}(size=8, bad_images='skip', val=0.3, test=0.3)")
    assert sum(len(data[name]) for name in ("train", "val", "test")) in (8, 9)
    assert "left out: train/cat/a.jpg" in data.notes[0] and "of 10 images" in data.notes[0]
    names = [file.name for name in ("train", "val", "test") for file in data[name].files]
    assert "a.jpg" not in names
