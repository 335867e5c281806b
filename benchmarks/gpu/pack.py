"""What is worth keeping of the run, within what comes back: 8 files of 16 MiB.

    python benchmarks/gpu/pack.py OUT

results.tar.xz holds logs, settings, metrics, scores and verdicts, weights.NN the trained weights:
cat weights.* > model.safetensors
"""

import io
import lzma
import os
import sys
import tarfile
from pathlib import Path

WORK = Path(os.environ["WORK"])
LIMIT, FILES, PART = 16 * 2**20, 8, 15_500_000
KEPT = {".json", ".jsonl", ".log", ".txt", ".html"}


def results() -> bytes:
    """A compressed archive of everything small in WORK."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(WORK.rglob("*")):
            if file.is_file() and file.suffix in KEPT and file.relative_to(WORK).parts[0] != "data":
                archive.add(file, file.relative_to(WORK).as_posix())
    return lzma.compress(buffer.getvalue(), preset=2)


def write(out: Path, name: str, content: bytes) -> None:
    """Write the content as one file, or as numbered parts."""
    for old in (out / name, *out.glob(f"{name}.[0-9][0-9]")):
        old.unlink(missing_ok=True)
    parts = [content[first : first + PART] for first in range(0, len(content), PART)]
    for number, part in enumerate(parts):
        (out / (name if len(parts) == 1 else f"{name}.{number:02d}")).write_bytes(part)


def main() -> None:
    out = Path(sys.argv[1])
    write(out, "results.tar.xz", results())
    weights = WORK / "cifar10" / "run" / "model.safetensors"
    if "--weights" in sys.argv:
        if weights.exists():
            write(out, "weights", weights.read_bytes())
        else:
            print("pack: there are no weights yet")
    files = sorted(file for file in out.rglob("*") if file.is_file())
    sizes = {file.name: file.stat().st_size for file in files}
    print("pack: " + ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in sizes.items()))
    if len(sizes) > FILES or max(sizes.values(), default=0) > LIMIT:
        print(f"pack: NOT ALL OF THIS COMES BACK: more than {FILES} files, or one above 16 MiB")


if __name__ == "__main__":
    main()
