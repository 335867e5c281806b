"""CIFAR-10's official batches, losslessly in half the bytes, and back to the very bytes.

    python benchmarks/gpu/pack_cifar10.py pack FOLDER-OF-BATCHES OUT
    python benchmarks/gpu/pack_cifar10.py unpack OUT FOLDER-OF-PACKS...

The pixels of a batch become sheets of 500 images in lossless WebP, the rest of its pickle is
compressed by xz. A batch that is unpacked has the published MD5, or there is an error.
"""

import hashlib
import io
import json
import lzma
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy
from PIL import Image

# equal to those of nuat.data.cifar (a test compares them), whose import would import torch
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
IMAGES, SHEET, VALUES = 10_000, 500, 3 * 32 * 32


def pack(out: Path, file: Path) -> str:
    whole = file.read_bytes()
    # pickle protocol 2 writes the pixels as one string: T, its length in 4 bytes, the bytes
    mark = b"T" + (IMAGES * VALUES).to_bytes(4, "little")
    if whole.count(mark) != 1:
        raise SystemExit(f"error: {file} is not a batch of CIFAR-10")
    start = whole.index(mark) + len(mark)
    end = start + IMAGES * VALUES
    pixels = numpy.frombuffer(whole[start:end], numpy.uint8).reshape(-1, 3, 32, 32)
    sheets = []
    for first in range(0, IMAGES, SHEET):
        rows = pixels[first : first + SHEET].transpose(0, 2, 3, 1).reshape(-1, 32, 3)
        buffer = io.BytesIO()
        Image.fromarray(numpy.ascontiguousarray(rows)).save(
            buffer, "WEBP", lossless=True, quality=75, method=4
        )
        sheets.append(buffer.getvalue())
    rest = lzma.compress(whole[:start] + whole[end:], preset=9)
    head = json.dumps({"start": start, "rest": len(rest), "sheets": [*map(len, sheets)]}).encode()
    packed = len(head).to_bytes(4, "little") + head + rest + b"".join(sheets)
    (out / f"{file.name}.pack").write_bytes(packed)
    return f"{file.name}: {len(packed) / 1e6:.1f} MB"


def unpack(out: Path, file: Path) -> str:
    name = file.name.removesuffix(".pack")
    target = out / name
    if target.exists():
        return f"{name}: there already"
    packed = io.BytesIO(file.read_bytes())
    head = json.loads(packed.read(int.from_bytes(packed.read(4), "little")))
    rest = lzma.decompress(packed.read(head["rest"]))
    parts = [rest[: head["start"]]]
    for size in head["sheets"]:
        rows = numpy.asarray(Image.open(io.BytesIO(packed.read(size))).convert("RGB"))
        parts.append(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).tobytes())
    whole = b"".join([*parts, rest[head["start"] :]])
    if hashlib.md5(whole).hexdigest() != MD5[name]:
        raise SystemExit(f"error: {file} does not unpack to the published {name}")
    part = target.with_suffix(".part")
    part.write_bytes(whole)
    part.replace(target)
    return f"{name}: unpacked, MD5 as published"


def main() -> None:
    do, *paths = sys.argv[1:]
    if do == "pack":
        folder, out = map(Path, paths)
        work, files = pack, [folder / name for name in MD5]
    else:
        out, *folders = map(Path, paths)
        work, files = unpack, sorted(file for each in folders for file in each.glob("*.pack"))
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        for line in pool.map(partial(work, out), files):
            print(line, flush=True)


if __name__ == "__main__":
    main()
