#!/usr/bin/env bash
# A published row on one CUDA GPU: NuAT-WA, ResNet-18, CIFAR-10, 100 epochs; then PGD, GAMA, AutoAttack.
#
#   NUAT_DATA=... WORK=folder OUT=folder bash benchmarks/gpu_cifar10.sh [SECONDS]
#
# Stops by itself before SECONDS (570) are over; the same command goes on. WORK keeps the run, OUT gets
# what is worth keeping: settings, metrics, scores, verdicts, the log, the weights in pieces of 15 MB
# (cat weights.* > model.safetensors). Installs nothing. On a CPU, as an exercise:
#   DATA='cifar10(train=200,val=50,test=50)' MORE='--epochs 1 --model small-cnn(width=4)' \
#   ATTACKS='--attack pgd-2' bash benchmarks/gpu_cifar10.sh
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${1:-570}
: "${WORK:?the folder that keeps the run}" "${OUT:?the folder of results}"
recipe=${RECIPE:-nuat-wa}
data=${DATA:-cifar10}
read -r -a more <<< "${MORE:---set precision=bf16 --cuda-graphs}"
read -r -a attacks <<< "${ATTACKS:---attack pgd-20 --attack gama-100 --attack autoattack --samples 1000}"
export PYTHONPATH=$PWD/src PYTHONUNBUFFERED=1
nuat() { python3 -m nuat.cli "$@"; }
left() { echo $((limit - SECONDS - 15)); }

keep() {
    cp "$WORK"/run/{config.json,metrics.jsonl} "$OUT" 2> /dev/null || true
    cp "$WORK"/verdict/{scores.json,verdicts.jsonl} "$OUT" 2> /dev/null || true
    if [[ -f $WORK/run/model.safetensors ]]; then
        split --bytes=15000000 "$WORK/run/model.safetensors" "$OUT/weights."
    fi
}
trap keep EXIT

{
    nuat train "$recipe" --data "$data" --out "$WORK/run" --max-time "$(left)s" "${more[@]}"
    if (($(left) > 30)); then
        # the journal keeps every batch that is done
        timeout --signal=INT "$(left)" python3 -m nuat.cli evaluate "$WORK/run" \
            --data "$data" --out "$WORK/verdict" "${attacks[@]}" || echo "not through yet: again"
    else
        echo "no time left for the attacks: again"
    fi
} 2>&1 | tee -a "$OUT/gpu_cifar10.log"
