#!/usr/bin/env bash
# A rehearsal of the GPU run on a CPU, with a tiny network: every stage is killed once, and goes on.
#
#   CARRY=.gpu bash benchmarks/gpu/rehearse.sh FOLDER     (CARRY: what prepare.sh has made)
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?the folder to work in}
export TINY=1 OUT=$folder/out WORK=$folder/work LIMIT=${LIMIT:-200} EPOCHS=${EPOCHS:-30}
export ATTACKS=${ATTACKS:-"pgd-20 gama-20 autoattack-v1/20"} OMP_NUM_THREADS=1
mkdir -p "$folder"

# the seconds after which a stage is killed, which is in the middle of its work on an idle processor
for each in ${STAGES:-smoke:12 steps:3 kernels:5 attacks_smoke:8 mnist:12 train:10 attack:5 pack:1}; do
    name=${each%:*} seconds=${each#*:}
    echo "=== $name: killed after $seconds s"
    setsid bash benchmarks/gpu/run.sh "$name:90" > "$folder/killed.log" 2>&1 &
    sleep "$seconds"
    # `timeout` puts a stage into a group of its own, but not into a session of its own
    if pkill -KILL -s $!; then echo "=== $name: killed"; else echo "=== $name: WAS THROUGH"; fi
    wait $! 2> /dev/null
    tail -n 4 "$folder/killed.log"
    echo "=== $name: the same command again"
    bash benchmarks/gpu/run.sh "$name:90" 2>&1 | tail -n 14
done
