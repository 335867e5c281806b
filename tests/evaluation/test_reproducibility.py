"""Verdicts do not depend on batches, order, processes or interruptions."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import nuat
from nuat.runtime import ranks
from tests.evaluation.conftest import ATTACKS, BALL, IMAGES


@pytest.mark.parametrize("batch_size", [7, 500])
def test_verdicts_do_not_depend_on_the_batch_size(net, images, expected, batch_size, tmp_path):
    nuat.evaluate(net, images, BALL, ATTACKS, out=tmp_path / "out", batch_size=batch_size)
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == expected


@pytest.mark.parametrize("seed", [1, 2])
def test_verdicts_do_not_depend_on_the_order_of_images(net, images, expected, seed, tmp_path):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    out = tmp_path / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, indices=order, out=out, batch_size=64)
    assert scores.indices == order
    assert (out / "verdicts.jsonl").read_bytes() == expected


def command(run, out, *more):
    chosen = [part for name in ATTACKS for part in ("--attack", name)]
    return [
        *(sys.executable, "-m", "nuat.cli", "evaluate", str(run.path), "--eps", "0.15"),
        *("--indices", f"0-{IMAGES - 1}", "--batch-size", "20", "--out", str(out), *chosen, *more),
    ]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_verdicts_do_not_depend_on_the_number_of_processes(run, expected, tmp_path):
    ranks = [
        subprocess.Popen(
            command(run, tmp_path / "out"),
            env=environment(
                RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29533"
            ),
            stdout=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    logs = [tmp_path / "out" / f"log-{rank}.jsonl" for rank in (0, 1)]
    assert all(log.stat().st_size > 0 for log in logs)
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == expected


def lines(out):
    file = out / "log-0.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_verdicts_do_not_depend_on_interruptions(run, expected, tmp_path):
    out, kills, chance = tmp_path / "out", 0, random.Random(5)
    while kills < 5:
        before = lines(out)
        process = subprocess.Popen(command(run, out), env=environment(), stdout=subprocess.DEVNULL)
        wanted = before + chance.randint(1, 12)
        while lines(out) < wanted and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        with (out / "log-0.jsonl").open("ab") as log:
            log.write(b'{"attack": "cut off in the mid')
    subprocess.run(command(run, out), env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert (out / "verdicts.jsonl").read_bytes() == expected


def test_batchwise_attacks_have_fixed_batches(net, images, tmp_path):
    found = []
    for size, order in ((7, range(100)), (500, range(100)), (64, range(99, -1, -1))):
        out = tmp_path / str(size)
        asked = {"indices": order, "out": out, "batch_size": size}
        nuat.evaluate(net, images, BALL, ["nuclear-5"], **asked)
        found.append((out / "verdicts.jsonl").read_bytes())
    assert found[0] == found[1] == found[2]


def test_each_rank_uses_its_own_gpu(monkeypatch):
    assert ranks.local_device() is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for rank, wanted in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert ranks.local_device() == wanted
