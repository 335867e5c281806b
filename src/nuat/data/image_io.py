"""Image files: reading, corruption checks, crops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from nuat.errors import InputError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
)
"""Files with these suffixes are treated as images."""
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""The bytes near the end of an undamaged file, by format."""
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3
PNG_BIT_DEPTH_OFFSET = 24


def find_corruption(file: Path, decode: bool = False) -> str:
    """Return what is wrong with an image file in a few words, or "" if nothing was found.

    A file whose format has an end marker is checked by its header and that marker, which finds
    truncated downloads without decoding; other files, or all with `decode`, are decoded.
    """
    try:
        with Image.open(file) as image:
            _check_bit_depth(file, image)
            if decode or not _has_end_marker(file, image):
                image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on a damaged file
        return _describe(file, error)
    return ""


def read_rgb(file: Path) -> Image.Image:
    """Return the image as 8-bit RGB, upright according to its EXIF orientation.

    A gray image becomes three equal channels; transparency is dropped.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with Image.open(file) as image:
            _check_bit_depth(file, image)
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on a damaged file
        raise InputError(f"{file} cannot be read: {_describe(file, error)}") from None


def to_gray_or_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit gray (mode L) if it is black and white or gray, else as RGB.

    Palettes become their colors, CMYK, YCbCr, HSV and LAB are converted, transparency is dropped.

    Raises:
        InputError: the image has more than 8 bits per channel, of unknown range.
    """
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"a PIL image has the mode {image.mode}, more than 8 bits per channel of unknown range:"
            " convert it to a float tensor in [0, 1]"
        )
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("LA", "La"):
        return image.convert("LA").convert("L")
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":  # Pillow converts LAB with a color profile only
        profile = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, profile)
        assert converted is not None, "only with inPlace=True there is no result"
        return converted
    if "transparency" in image.info or image.mode in ("PA", "RGBa", "La"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _describe(file: Path, error: Exception) -> str:
    text = " ".join(str(error).split()).replace(f" {str(file)!r}", "")
    return text or type(error).__name__


def _check_bit_depth(file: Path, image: Image.Image) -> None:
    """Raise ValueError for images of 16 bits or floats, whose value range is unknown."""
    is_deep = image.mode.startswith(("I", "F"))
    if image.format == "PNG":
        # Pillow reports 16-bit color PNGs as 8-bit RGB and drops the low bits.
        with file.open("rb") as png:
            header = png.read(PNG_BIT_DEPTH_OFFSET + 1)
        is_deep = is_deep or header[PNG_BIT_DEPTH_OFFSET:] == bytes([16])
    if is_deep:
        raise ValueError(
            "it has more than 8 bits per channel, of unknown range; convert it to 8 bits"
        )


def _has_end_marker(file: Path, image: Image.Image) -> bool:
    if image.format not in END_MARKERS:
        return False
    with file.open("rb") as raw:
        raw.seek(max(0, file.stat().st_size - 64))
        return END_MARKERS[image.format] in raw.read()


def resize_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to size * 256 / 224 pixels and crop the center, size x size.

    At 224 this is the usual evaluation on ImageNet, 256 pixels. Bilinear, with antialiasing.
    """
    target = round(size * 256 / 224)
    scale = target / min(image.size)
    width, height = (max(target, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_resized_crop_box(
    width: int, height: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Draw a random box (left, top, right, bottom) in an image of width x height pixels.

    Its area is a fraction of the image's area, uniform in `scale`; its aspect ratio is log-uniform
    in [3/4, 4/3]. If ten draws do not fit into the image, the box is the largest one in the center
    whose aspect ratio lies in this range.
    """
    log_min, log_max = math.log(MIN_ASPECT), math.log(MAX_ASPECT)
    for _ in range(10):
        u_area, u_aspect, u_left, u_top = torch.rand(4, generator=generator).tolist()
        area = width * height * (scale[0] + u_area * (scale[1] - scale[0]))
        aspect = math.exp(log_min + u_aspect * (log_max - log_min))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(u_left * (width - w + 1)), int(u_top * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * MAX_ASPECT)))
    h = min(height, max(1, round(width / MIN_ASPECT)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop_resize(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    """Crop the box and resize it to size x size. Bilinear, with antialiasing."""
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to uint8 [3, H, W]."""
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous()
