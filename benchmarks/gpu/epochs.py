"""How many epochs of 100 fit into the time, by the measured step; decided once for a run.

WORK=folder python benchmarks/gpu/epochs.py SECONDS
"""

import json
import os
import sys
from pathlib import Path

PUBLISHED = 100
BESIDE_STEPS = 1.3
"""Seconds an epoch for validation in float32 and for two files of weights and a checkpoint."""
START = 20.0
"""Seconds for imports, data and the first steps."""


def main() -> None:
    work, seconds = Path(os.environ["WORK"]), float(sys.argv[1])
    decided = work / "cifar10" / "epochs.txt"
    if not decided.exists():
        file, epochs = work / "steps.jsonl", PUBLISHED
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        times = [row["epoch_s"] for row in rows if row["name"] == "nuat-wa bf16 64 graphs"]
        for epoch_s in times:
            epochs = int((seconds - START) / (1.05 * epoch_s + BESIDE_STEPS))
        decided.write_text(f"{max(1, min(PUBLISHED, epochs))}\n")
    print(decided.read_text().strip())


if __name__ == "__main__":
    main()
