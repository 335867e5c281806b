"""One image file: what is wrong with it, and how it becomes a square of RGB."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nuat.errors import InputError

COMMON = (".jpg", ".jpeg", ".png", ".webp", ".gif")
ENDINGS = {*COMMON, ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}
"""Files that are taken for images."""
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""What a whole file of a format ends with."""
SIDES = 3 / 4, 4 / 3


def fault(file: Path, thorough: bool = False) -> str:
    """What is wrong with an image file, in a few words; "" if nothing was found.

    Looks at the header and the last bytes, and decodes what does not end as its format does; with
    `thorough`, everything.
    """
    try:
        with Image.open(file) as image:
            _refuse_deep(file, image)
            if thorough or not _ends_well(file, image):
                image.load()
    except MemoryError:
        raise
    except Exception as error:  # a decoder raises anything on a damaged file
        return _words(file, error)
    return ""


def rgb(file: Path) -> Image.Image:
    """The image upright (EXIF orientation), 8-bit RGB; grey becomes three equal channels.

    Transparency is dropped. Raises InputError that names a file it cannot read.
    """
    try:
        with Image.open(file) as image:
            _refuse_deep(file, image)
            ImageOps.exif_transpose(image, in_place=True)
            if "transparency" in image.info:
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"{file} cannot be read: {_words(file, error)}") from None


def _words(file: Path, error: Exception) -> str:
    text = " ".join(str(error).split()).replace(f" {str(file)!r}", "")
    return text or type(error).__name__


def _refuse_deep(file: Path, image: Image.Image) -> None:
    """16 bits or floats a colour. Pillow would read a PNG of 16-bit colour as one of 8."""
    deep = image.mode.startswith(("I", "F"))
    if image.format == "PNG":
        with file.open("rb") as png:
            deep = deep or png.read(25)[24:] == b"\x10"
    if deep:
        raise ValueError("it has more than 8 bits a colour, of unknown range; convert it to 8 bits")


def _ends_well(file: Path, image: Image.Image) -> bool:
    with file.open("rb") as raw:
        raw.seek(max(0, file.stat().st_size - 64))
        return image.format in LAST_BYTES and LAST_BYTES[image.format] in raw.read()


def middle(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is size * 256 / 224, and cut the middle size x size.

    At 224: 256, the usual way of evaluation on ImageNet. Bilinear, with antialiasing.
    """
    target = round(size * 256 / 224)
    scale = target / min(image.size)
    width, height = (max(target, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def window(
    width: int, height: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """A window (left, top, right, bottom) of a share of the area drawn from `scale`.

    Its sides are 3:4 to 4:3, log-uniform. If ten draws do not fit into the image: the largest
    window in the middle whose sides are within these bounds.
    """
    for _ in range(10):
        share, ratio, across, down = torch.rand(4, generator=generator).tolist()
        area = width * height * (scale[0] + share * (scale[1] - scale[0]))
        log_low, log_high = (math.log(side) for side in SIDES)
        sides = math.exp(log_low + ratio * (log_high - log_low))
        w, h = round(math.sqrt(area * sides)), round(math.sqrt(area / sides))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * SIDES[1])))
    h = min(height, max(1, round(width / SIDES[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    """The window, resized to size x size. Bilinear, with antialiasing."""
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def tensor(image: Image.Image) -> Tensor:
    """uint8 [3, H, W]."""
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous()
