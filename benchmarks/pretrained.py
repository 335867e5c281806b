"""Add trained runs to the models that come with nuat: src/nuat/pretrained.

    python benchmarks/pretrained.py LOG RUN...

Each run needs its evaluation on the whole or a part of the test split, as `nuat reproduce` makes
it, and becomes `nuat:DATA/RECIPE`. LOG names the file under results/ that holds the log of the
command. An entry of the same name is replaced.
"""

import argparse
import hashlib
import json
from pathlib import Path

from nuat import load_model
from nuat.checkpoints import write_weights
from nuat.checkpoints.pretrained import FOLDER
from nuat.checkpoints.run import Run
from nuat.evaluation import EvaluationResult
from nuat.nn.state_dict import plain_state_dict
from nuat.recipes import get_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--changes", default="", help="what was changed in the recipes")
    arguments = parser.parse_args()
    registry = FOLDER / "models.json"
    models = json.loads(registry.read_text()) if registry.exists() else {}
    for path in arguments.runs:
        name, entry = add(path, arguments.log, arguments.changes)
        models[name] = entry
        print(name, entry["accuracy"])
    registry.write_text(json.dumps(dict(sorted(models.items())), indent=2) + "\n")


def add(path: Path, log: str, changes: str) -> tuple[str, dict]:
    run, loaded = Run.open(path), load_model(path)
    recipe = run.config["recipe"]["name"]
    data = loaded.data.partition("(")[0]
    result = EvaluationResult.from_dict(run.scores["test"], path)
    file = f"{data}-{recipe}.safetensors"
    metadata = dict(loaded.metadata) | {"data": data}
    write_weights(FOLDER / file, plain_state_dict(loaded.model), metadata)
    accuracies = {"clean": result.clean_accuracy} | {
        attack: result.robust_accuracy(attack) for attack in result.attacks
    }
    return f"{data}/{recipe}", {
        "file": file,
        "sha256": hashlib.sha256((FOLDER / file).read_bytes()).hexdigest(),
        "license": "MIT",
        "recipe": recipe,
        "data": data,
        "ball": str(get_recipe(recipe, data).ball),
        "seed": run.config["seed"],
        "changes": changes,
        "images": len(result.indices),
        "accuracy": {name: round(100 * value, 2) for name, value in accuracies.items()},
        "log": log,
    }


if __name__ == "__main__":
    main()
