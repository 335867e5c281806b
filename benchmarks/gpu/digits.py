"""The digits network that travels to the GPU, and the verdicts of this machine's CPU on it.

python benchmarks/gpu/digits.py OUT
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import numpy

import nuat
from nuat.checkpoints import load_model
from nuat.data import load_dataset
from nuat.evaluation import evaluate

ATTACKS = "pgd-20", "gama-20", "apgd-ce-20", "apgd-t-10(targets=3)", "fab-t-10(targets=3)"
ATTACKS += ("square-200",)


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    splits = load_dataset("digits")
    arrays = {}
    for split in ("train", "val", "test"):
        images = splits[split]
        arrays |= {f"x_{split}": images.x.numpy(), f"y_{split}": images.y.numpy()}
    numpy.savez_compressed(out / "digits.npz", **arrays)
    with tempfile.TemporaryDirectory() as folder:
        recipe = nuat.get_recipe("nuat-wa", "digits").with_epochs(10)
        nuat.fit(recipe, data=splits, out=Path(folder) / "run", device="cpu")
        weights = (Path(folder) / "run" / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights)
    loaded = load_model(out / "model.safetensors")
    assert loaded.ball is not None
    result = evaluate(loaded.model, splits.test, loaded.ball, ATTACKS)
    (out / "verdicts.json").write_text(json.dumps(result.robust) + "\n")
    print({name: sum(robust) for name, robust in result.robust.items()})


if __name__ == "__main__":
    main()
