#!/usr/bin/env bash
# The run on one GPU, stage by stage, each within its time; the same command goes on where it stopped.
#
#   OUT=folder [WORK=folder] [LIMIT=seconds] bash benchmarks/gpu/run.sh STAGE[:SECONDS]...
#
#   smoke    versions, ceilings, graphs against eager steps, norms, verdicts of a CPU, resuming
#   steps    the table of training steps
#   kernels  where the time of a step goes, and what an epoch costs beside its steps
#   attacks_smoke  the attacks as CUDA graphs against eager ones
#   attacks  the parts of AutoAttack: verdicts against a CPU's, time and waits of an iterate
#   mnist    the rows of the MNIST table
#   unpack   CIFAR-10 from the packs that prepare.sh made, three at a time
#   train    CIFAR-10, ResNet-18, NuAT-WA as published, in bfloat16 (RECIPE, EPOCHS, MORE change it)
#   attack   its clean accuracy, PGD-20, GAMA-100, AutoAttack v1 (ATTACKS changes them)
#   pack     its weights, beside the results, which every stage packs
#
# A stage without SECONDS gets what is left of LIMIT, but for what `pack` needs. WORK keeps everything
# (default: a folder in the system's temp folder), OUT gets run.log at once and results.tar.xz after each
# stage. CARRY is the folder of prepare.sh. TINY=1 rehearses all of it on a CPU. Installs nothing.
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${OUT:?the folder of results}"
export TINY=${TINY:-} WORK=${WORK:-${TMPDIR:-/tmp}/nuat-gpu} CARRY=${CARRY:-$PWD/.gpu}
export PYTHONPATH=$PWD/src PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
export NUAT_DATA=$WORK/data COLUMNS=${COLUMNS:-160}
limit=${LIMIT:-600} here=benchmarks/gpu
mkdir -p "$WORK/data" "$OUT"
# what a later command of the same run may find no longer
[[ ! -d $CARRY/small ]] || cp -rn "$CARRY"/small/{mnist,site} "$WORK/data/" 2> /dev/null
python3 -c 'import typer' 2> /dev/null || export PYTHONPATH=$PYTHONPATH:$WORK/data/site

say() { echo "[$SECONDS s] $*"; }
# the time of a stage: what it was given, but no more than is left when `pack` has its share
share() {
    local left=$((limit - SECONDS - 15))
    echo $((${1:-left} < left ? ${1:-left} : left))
}
unpack() {
    shopt -s nullglob
    local packs=("$CARRY"/{a,b}/*.pack)
    ((${#packs[@]} == 0)) || python3 $here/pack_cifar10.py unpack "$WORK/data/cifar10/cifar-10-batches-py" "$CARRY"/{a,b}
}
train() {
    mkdir -p "$WORK/cifar10"
    unpack || return
    local words=("${RECIPE:-nuat-wa}" --out "$WORK/cifar10/run" --max-time "$(($1 - SECONDS - 10))s")
    if [[ $TINY ]]; then
        local data="npz:$CARRY/small/digits/digits.npz"
        words+=(--data "$data" --model 'small-cnn(width=4)' --epochs "${EPOCHS:-12}" --device cpu)
    else
        local epochs=${EPOCHS:-100}
        words+=(--data cifar10 --set precision=bf16)
        ((epochs == 100)) || { echo "NOT THE PUBLISHED 100 EPOCHS: $epochs" && words+=(--epochs "$epochs"); }
    fi
    # shellcheck disable=SC2086  # MORE is several words
    python3 -m nuat.cli train "${words[@]}" ${MORE:-}
}
stage() {
    local seconds=$2
    case $1 in
        smoke) python3 $here/environment.py && python3 $here/smoke.py --seconds "$seconds" ;;
        steps) python3 $here/steps.py --seconds "$seconds" ;;
        kernels) python3 $here/kernels.py --seconds "$seconds" ;;
        attacks_smoke) python3 $here/attacks_smoke.py --seconds "$seconds" ;;
        attacks) python3 $here/attacks.py --out "$WORK" --seconds "$seconds" ${TINY:+--tiny} ;;
        mnist) python3 $here/mnist.py --seconds "$seconds" ;;
        unpack) unpack ;;
        train) train "$seconds" ;;
        attack) python3 $here/evaluate.py --seconds "$seconds" ;;
        pack) python3 $here/pack.py "$OUT" --weights ;;
        *) echo "error: there is no stage $1" && return 2 ;;
    esac
}
export -f stage train unpack
export here

for each in "$@"; do
    name=${each%%:*} seconds=$(share "$([[ $each == *:* ]] && echo "${each#*:}")")
    if ((seconds < 5)) && [[ $name != pack ]]; then
        say "$name: LEFT OUT, no time" | tee -a "$OUT/run.log"
        continue
    fi
    say "stage $name, $seconds s" | tee -a "$OUT/run.log"
    STAGE_BEGAN=$(date +%s.%N) && export STAGE_BEGAN
    # a stage ends by itself; timeout is for one that does not
    timeout --signal=INT --kill-after=5 "$((seconds + 10))" bash -c 'stage "$@"' bash "$name" "$seconds" 2>&1 |
        tee -a "$OUT/run.log" "$WORK/$name.log"
    say "stage $name: exit ${PIPESTATUS[0]}" | tee -a "$OUT/run.log"
    [[ $name == pack ]] || python3 $here/pack.py "$OUT"
done
say "done: $*" | tee -a "$OUT/run.log"
