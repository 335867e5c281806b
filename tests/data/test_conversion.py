"""Images and labels of every kind become gray or RGB in [0, 1] and int64, or are one clear line."""

import numpy
import pytest
import torch
from PIL import Image, ImageCms
from torch.utils.data import Dataset

import nuat
from nuat import InMemoryDataset, InputError
from nuat.data import as_dataset
from nuat.data.conversion import to_label, to_labels, to_tensor

X = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 4


class Items(Dataset):
    """A Dataset of the images and labels given, one by one."""

    def __init__(self, images, labels=None):
        self.images, self.labels = images, labels or [i % 2 for i in range(len(images))]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


# PIL images


def red(mode):
    """A red image with one white pixel, in the PIL mode."""
    pixels = numpy.zeros((8, 8, 3), numpy.uint8)
    pixels[..., 0] = 200
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    if mode == "P":
        return image.quantize(8)
    if mode == "PA":
        return image.quantize(8).convert("PA")
    if mode in ("RGBa", "La"):
        return image.convert(mode.upper()).convert(mode)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(numpy.uint16))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    return image.convert(mode)


COLORED = ["RGB", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]


@pytest.mark.parametrize("mode", COLORED)
@pytest.mark.parametrize("kind", [Items, lambda images: zip(images, [0, 1], strict=True)])
def test_colored_pil_images_become_rgb(mode, kind):
    x, _ = as_dataset(kind([red(mode), red("RGB")])).batch(torch.arange(2))
    assert x.shape == (2, 3, 8, 8)
    assert float((x[0] - x[1]).abs().max()) < 0.04  # LAB rounds most


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La"])
def test_gray_pil_images_have_one_channel(mode):
    x, _ = as_dataset(Items([red(mode), red(mode)])).batch(torch.arange(2))
    assert x.shape == (2, 1, 8, 8) and x[0, 0, 0, 0] == 1


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_pil_images_of_unknown_range_are_refused(mode):
    with pytest.raises(InputError, match=f"PIL image has the mode {mode}, more than 8 bits"):
        as_dataset(Items([red(mode)]))


def test_gray_images_among_colored_ones():
    data = as_dataset(Items([red("RGB"), red("L")]))
    assert torch.equal(*data.batch(torch.tensor([1]))[0][0, :2])
    data = as_dataset(Items([red("L"), red("RGB")]))
    with pytest.raises(InputError, match=r"should be \[1, 8, 8\].*convert\(\"RGB\"\)"):
        data.batch(torch.arange(2))


# bytes of 0 and 1

BITS = (X > 0.5).to(torch.uint8)


def archive_of_bits(folder):
    numpy.savez(folder / "a.npz", x_train=BITS.numpy(), y_train=Y.numpy())
    return nuat.load_dataset(f"npz:{folder}/a.npz")


def files_of_bits(folder):
    for i in range(12):
        path = folder / f"{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(BITS[i, 0].numpy()).save(path)
    return nuat.load_dataset(f"folder:{folder}(size=8)")


@pytest.mark.parametrize(
    "read",
    [
        lambda _: as_dataset((BITS, Y)).check(),
        lambda _: as_dataset(Items(list(BITS))).check(),
        lambda _: as_dataset(zip(BITS, Y, strict=True)).check(),
        lambda _: nuat.data.as_splits((BITS, Y)),
        archive_of_bits,
        files_of_bits,
    ],
)
def test_bytes_of_0_and_1_are_refused(read, tmp_path):
    with pytest.raises(InputError, match=r"no pixel is above 1, but uint8 runs from 0 .* to 255"):
        read(tmp_path)


def test_dark_images_among_others_are_accepted():
    images = torch.cat([BITS[:3], BITS[3:] * 255])
    as_dataset((images, Y)).check()
    as_dataset(Items(list(images))).check()
    as_dataset((BITS * 0, Y)).check()


# labels


LABELS = {
    **{name: Y.numpy().astype(name) for name in ("uint8", "int8", "uint16", "uint32", "uint64")},
    **{name: Y.numpy().astype(name) for name in (">i8", ">u2", ">f4", "float16", "float64")},
    "negative strides": Y.flip(0).numpy()[::-1],
    "every second": Y.repeat_interleave(2).numpy()[::2],
    "a column": Y[:, None],
    "a column of floats": Y[:, None].double(),
    "a uint16 tensor": Y.to(torch.uint16),
    "a bfloat16 tensor": Y.bfloat16(),
    "read only": numpy.frombuffer(Y.numpy().tobytes(), numpy.int64),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_number_type(name):
    for data in (as_dataset((X, LABELS[name])), InMemoryDataset(X, to_tensor(LABELS[name]))):
        data.check(classes=4)
        assert data.y.dtype == torch.int64 and torch.equal(data.y, Y)


@pytest.mark.parametrize("label", [3, 3.0, numpy.uint16(3), numpy.array([3]), numpy.float32(3)])
@pytest.mark.parametrize("wrap", [lambda y: y, torch.as_tensor, lambda y: [y]])
def test_one_label_of_every_number_type(label, wrap):
    assert to_label(wrap(label)) == 3
    assert as_dataset(Items(list(X), [label] * 12)).y.tolist() == [3] * 12


WRONG_LABELS = {
    "one-hot": (torch.eye(4)[Y], r"of shape \[12, 4\].*one-hot labels, take y.argmax\(1\)"),
    "whole one-hot": (torch.eye(4)[Y].long(), r"of shape \[12, 4\].*take y.argmax\(1\)"),
    "fractions": (Y + 0.5, "not all of them are whole numbers"),
    "NaN": (Y / 0 * 0, "not all of them are whole numbers"),
    "too many": (torch.arange(20) % 4, r"of shape \[20\], not integers \[12\]"),
    "booleans": (Y > 1, r"torch.bool .*convert them with .long\(\)"),
    "negative": (Y - 1, "labels run from -1 to 2"),
    "complex": (Y.to(torch.complex64), "torch.complex64"),
    "maps": (Y[:, None, None].expand(12, 8, 8), r"of shape \[12, 8, 8\]"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
@pytest.mark.parametrize("samples", [None, 4])
def test_other_labels_are_refused_in_one_line(name, samples):
    y, message = WRONG_LABELS[name]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, (X, y), nuat.Linf(0.1), "fgsm", samples=samples)


@pytest.mark.parametrize("label", [torch.eye(4)[1], "cat", None, 1.5, True, [1, 0]])
def test_a_label_that_is_no_number_names_its_image(label):
    with pytest.raises(
        InputError, match=r"image 0 of the Dataset: a label is .*not a whole number"
    ):
        as_dataset(Items(list(X), [label] * 12))


# arrays


@pytest.mark.parametrize(
    "x",
    [
        X.numpy().astype(">f4"),
        X.flip(1).numpy()[:, ::-1],
        X.numpy()[..., ::-1].copy()[..., ::-1],
        X.clone().requires_grad_(),
    ],
)
def test_arrays_of_any_byte_order_and_strides(x):
    for data in (as_dataset((x, Y)), as_dataset(Items(list(x)))):
        assert torch.equal(data.batch(torch.arange(12))[0], X)


def test_labels_may_be_a_list():
    assert to_labels([0, 1, 2]).tolist() == [0, 1, 2] and to_labels([[1], [0]]).tolist() == [1, 0]
