#!/usr/bin/env bash
# What the GPU run takes along, in a folder that git ignores:
#   .gpu/a, .gpu/b   CIFAR-10 in six packs, three a folder
#   .gpu/small       MNIST, a digits network with the verdicts of this CPU, typer for a machine without
#
#   NUAT_DATA=... [PYTHON=python3] bash benchmarks/gpu/prepare.sh [FOLDER]
#
# What is there already is kept. Ends with the size of what would travel, of which 64 MiB may.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${NUAT_DATA:?the folder of the data sets}"
to=${1:-.gpu} python=${PYTHON:-python3} here=benchmarks/gpu
export PYTHONPATH=$PWD/src
mkdir -p "$to"/{a,b,small/mnist/MNIST/raw}

if (($(ls "$to"/a/*.pack "$to"/b/*.pack 2> /dev/null | wc -l) < 6)); then
    "$python" $here/pack_cifar10.py pack "$NUAT_DATA/cifar10/cifar-10-batches-py" "$to/all"
    mv "$to"/all/data_batch_[123].pack "$to/a"
    mv "$to"/all/*.pack "$to/b"
    rmdir "$to/all"
fi
cp -n "$NUAT_DATA"/mnist/MNIST/raw/*.gz "$to/small/mnist/MNIST/raw/"
chmod -R u+w "$to"
[[ -f $to/small/digits/verdicts.json ]] || "$python" $here/digits.py "$to/small/digits"
"$python" - "$to/small/site" << 'END'
import shutil, sys
from importlib.util import find_spec
from pathlib import Path

for name in ("typer", "shellingham", "annotated_doc"):
    place, out = Path(find_spec(name).origin).parent, Path(sys.argv[1]) / name
    shutil.copytree(place, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
END

bytes() { du -cb "$@" | tail -1 | cut -f1; }
tree=$(git ls-files -z --cached --others --exclude-standard | du -cb --files0-from=- | tail -1 | cut -f1)
too_much=0
check() {
    echo "$(($1 / 1048576)).$(($1 % 1048576 * 10 / 1048576)) MiB: the repository with $2"
    (($1 < 63 * 1048576)) || too_much=1
}
check $((tree + $(bytes "$to/small"))) "$to/small"
check $((tree + $(bytes "$to/small" "$to/a"))) "$to/small and $to/a"
check $((tree + $(bytes "$to/b"))) "$to/b"
((too_much == 0)) || { echo "error: more than 63 MiB would travel"; exit 1; }
