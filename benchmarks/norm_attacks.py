"""Where errors go: confusion matrices under the nuclear and the Frobenius attack, without labels.

    python benchmarks/norm_attacks.py RUN | tee results/norm-attacks/log.txt

RUN is a normally trained network. Images are attacked in batches of 64, in the order of the data.
"""

import argparse
from pathlib import Path

import torch

import nuat
from nuat.attacks import FrobeniusAttack, NuclearAttack, logits
from nuat.data import load_dataset
from nuat.evaluation.confusion import confusion_matrix, error_entropy
from nuat.rng import PerImageNoise

EPS = (4 / 255, 8 / 255)


def main(run: Path, count: int, seeds: int) -> None:
    network = nuat.load_model(run)
    test, classes = load_dataset(network.data).test, network.classes
    ids = torch.arange(min(count, len(test)))
    x, y = test.batch(ids)
    clean = confusion_matrix(y, logits(network.model, x).argmax(1), len(classes))
    print(
        f"{network.model_name} on {network.data}, {len(ids)} images, clean accuracy {share(clean)}"
    )
    for eps in EPS:
        for kind in (NuclearAttack, FrobeniusAttack):
            attack, found = kind(nuat.Linf(eps)), []
            for seed in range(seeds):
                points = [
                    attack(network.model, x[part], y[part], PerImageNoise(seed, part, "norm"))
                    for part in ids.split(attack.batch)
                ]
                guesses = logits(network.model, torch.cat(points)).argmax(1)
                found.append(confusion_matrix(y, guesses, len(classes)))
            spread = ", ".join(f"{error_entropy(matrix):.3f}" for matrix in found)
            print(
                f"\neps {eps * 255:g}/255, {kind.__name__}: accuracy {share(found[0])}; "
                f"entropy of the classes wrongly given {spread} bits",
                flush=True,
            )
            show(found[0], classes)


def share(matrix: torch.Tensor) -> str:
    return f"{matrix.diagonal().sum() / matrix.sum():.1%}"


def show(matrix: torch.Tensor, classes: tuple[str, ...]) -> None:
    print(" " * 12 + "".join(f"{name[:6]:>7}" for name in classes))
    for name, row in zip(classes, matrix.tolist(), strict=True):
        print(f"{name:12}" + "".join(f"{count:7}" for count in row))


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("run", type=Path)
    reader.add_argument("--images", type=int, default=2000)
    reader.add_argument("--seeds", type=int, default=3)
    asked = reader.parse_args()
    torch.set_num_threads(1)
    main(asked.run, asked.images, asked.seeds)
