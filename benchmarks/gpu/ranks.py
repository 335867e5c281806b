"""Ranks that share one GPU, against one process: synchronized BatchNorm, and the bare network.

    PYTHONPATH=src:. python benchmarks/gpu/ranks.py

Two and four ranks share the GPU, so they talk by gloo. `benchmarks/ranks.py` and
tests/training/test_distributed.py do without a GPU, where torch has no SyncBatchNorm.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tests.training.rank_steps import Case, train, train_all
from tests.training.ranks import on_ranks
from tests.training.test_distributed import difference

CASES = [
    Case(name, batchnorm, device="cuda:0")
    for name in ("nuat", "nuat2-wa", "awp")
    for batchnorm in (None, "sync")
]


def main() -> None:
    torch.backends.cudnn.deterministic = True
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    one = {case: train(case)["model"] for case in CASES}
    for ranks in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            of_ranks = on_ranks(ranks, Path(folder), train_all, CASES, device="cuda:0")
        for case in CASES:
            states = [each[case]["model"] for each in of_ranks]
            among = max(difference(states[0], other) for other in states)
            from_one = difference(one[case], states[0])
            print(f"{case}, {ranks} ranks: {from_one:.1e} from one process, {among:.0e} among them")


if __name__ == "__main__":
    main()
