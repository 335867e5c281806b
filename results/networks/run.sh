#!/usr/bin/env bash
# The log beside this file: bash run.sh > log.txt 2>&1, with the extras vision and export installed
# and a torchvision that does not import beside this torch.
export OMP_NUM_THREADS=1 NO_COLOR=1 COLUMNS=100
cd "$(mktemp -d)" || exit 1
say() { echo; echo "\$ $*"; "$@"; echo "(status $?)"; }

cat > operators.py <<'PY'
import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # while the declarations live
PY

echo "# torchvision that cannot be imported, and the same with the operators it misses declared:"
echo "# three steps of 399 images"
say nuat train nuat --model timm:resnet18 --epochs 1 --out timm
say nuat train nuat --model timm:resnet18 --epochs 1 --set batch_size=399 --use operators.py --out timm

echo; echo "# two networks of the same weights: one is refused for the other"
say nuat train nuat-wa --model 'resnet18(width=8)' --epochs 2 --out plain
say nuat evaluate plain --model 'resnet18-nuat(width=8)'
say nuat train nuat-wa --model 'resnet18-nuat(width=8)' --init plain --epochs 2 --out tuned

echo; echo "# fine-tuning, verdicts, and taking it away"
say nuat train nuat-wa --model 'resnet18(width=8)' --init plain --epochs 2 --seed 1 --out tuned
say nuat evaluate tuned --attack pgd-20 --attack gama-100 --samples 200
say nuat export tuned --out given --onnx given.onnx --state-dict given.pt --licence mit
say nuat evaluate given --attack pgd-20 --attack gama-100 --samples 200
say head -24 given/README.md
