"""Quick attacks beside AutoAttack: which of its successes they find, and the passes they spend.

    nuat evaluate RUN --attack autoattack --attack mm5 --attack apgd-t-malt --out FOLDER
    python benchmarks/quick_tier.py FOLDER...

Passes are forward and backward passes through the network for each image that is classified
correctly. The order of MALT's targets costs one forward pass and a backward pass for each other
class, which an evaluation does not count; they are added here.
"""

import argparse
import json
from pathlib import Path

from nuat.evaluation import EvaluationResult

REFERENCE = "autoattack"


def broken(result: EvaluationResult, attack: str) -> set[int]:
    """The images that are classified correctly and fall to an attack."""
    rows = zip(result.indices, result.labels, result.predicted, result.robust[attack], strict=True)
    return {index for index, y, predicted, robust in rows if y == predicted and not robust}


def passes(result: EvaluationResult, attack: str) -> tuple[float, float]:
    """Forward and backward passes for each image that is classified correctly."""
    correct = round(result.clean_accuracy * len(result.indices))
    parts = result.parts[attack].values()
    spent = [
        sum(part["images"] * part[kind] for part in parts) / correct
        for kind in ("forwards", "backwards")
    ]
    if "malt" in attack:
        spent = [spent[0] + 1, spent[1] + max(result.labels)]
    return spent[0], spent[1]


def main(folders: list[Path]) -> None:
    for folder in folders:
        result = EvaluationResult.from_dict(json.loads((folder / "scores.json").read_text()))
        found = broken(result, REFERENCE)
        total, correct = len(result.indices), round(result.clean_accuracy * len(result.indices))
        print(f"{folder.name}: {total} images, {result.ball}, {correct} classified correctly")
        print(
            f"  {'attack':24}{'robust, %':>10}{'of its ' + str(len(found)):>12}{'others':>8}",
            end="",
        )
        print(f"{'forwards':>10}{'backwards':>11}{'share':>8}")
        cost = sum(passes(result, REFERENCE))
        for attack in result.robust:
            fallen, (forwards, backwards) = broken(result, attack), passes(result, attack)
            share = (forwards + backwards) / cost
            print(
                f"  {attack:24}{100 * result.robust_accuracy(attack):10.1f}"
                f"{len(fallen & found):12}{len(fallen - found):8}"
                f"{forwards:10.0f}{backwards:11.0f}{share:8.1%}"
            )


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("folders", type=Path, nargs="+")
    main(reader.parse_args().folders)
