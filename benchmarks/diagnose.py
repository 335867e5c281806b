"""Calibration of `nuat diagnose`: the numbers of every check on networks of known kinds.

    python benchmarks/diagnose.py RUNS --seeds 2 --samples 100 | tee results/diagnose/log.txt

RUNS is a folder for the trained networks, which are kept there. All data are the digits.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import nuat
from nuat.diagnosis import diagnose

EPOCHS = {"normal": 20, "fgsm-at": 20, "pgd-at": 12, "nuat-wa": 20, "trades": 12}
RECIPE_BALL, LARGE_BALL = nuat.Linf(0.15), nuat.Linf(0.3)


class Before(nn.Module):
    """A network after a layer that changes its images."""

    def __init__(self, network: nn.Module, layer: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.layer(x))


class Abstaining(nn.Module):
    """All logits are 0 unless the pixels are multiples of 1/16, as those of the digits are."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        is_clean = (x * 16 == (x * 16).round()).flatten(1).all(1)
        return self.network(x) * is_clean[:, None]


class Scaled(nn.Module):
    """A network whose logits are multiplied by 1000, as after distillation."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * self.network(x)


LAYERS = {
    "quantized": lambda x: (x * 4).round() / 4,
    "shattered": lambda x: x + 0.02 * (300 * x).sin(),
    "saturated": lambda x: (200 * (x - 0.5)).sigmoid(),
    "noisy": lambda x: x + 0.1 * torch.randn_like(x),
}


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def train_perceptron(method: nuat.Method, seed: int, epochs: int = 40) -> nn.Module:
    """Train without weight decay and augmentation, with which FGSM-AT collapses at eps 0.3."""
    torch.manual_seed(seed)
    network, train = perceptron(), nuat.load_dataset("digits").train
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * min(1, (epoch + 1) / 5) * (1 - epoch / epochs)
        for batch, rows in enumerate(torch.randperm(len(train)).split(64)):
            x, y = train.batch(rows)
            for loss in method.step(network, x, y, nuat.StepContext(epoch, batch, batch_size=64)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


def trained(folder: Path, name: str, seed: int) -> nn.Module:
    recipe = nuat.get_recipe(name, "digits").with_epochs(EPOCHS[name])
    run = nuat.fit(
        recipe.with_override("model", "small-cnn(width=16)"),
        out=folder / f"{name}-{seed}",
        seed=seed,
    )
    return nuat.load_model(run.path).model


def networks(folder: Path, seed: int) -> Iterator[tuple[str, nn.Module, nuat.Linf]]:
    large = LARGE_BALL
    fgsm = nuat.AT(inner=nuat.FGSM(large))
    yield "perceptron: fgsm-at, collapsed", train_perceptron(fgsm, seed), large
    yield "perceptron: normal", train_perceptron(nuat.Standard(), seed), large
    normal, robust = (trained(folder, name, seed) for name in ("normal", "pgd-at"))
    for name in EPOCHS:
        yield name, trained(folder, name, seed), RECIPE_BALL
    for name in ("quantized", "shattered", "saturated"):
        yield f"{name}, then normal", Before(normal, LAYERS[name]), RECIPE_BALL
    yield "noisy, then pgd-at", Before(robust, LAYERS["noisy"]), RECIPE_BALL
    yield "normal, logits x 1000", Scaled(normal), RECIPE_BALL
    yield "pgd-at, logits x 1000", Scaled(robust), RECIPE_BALL
    yield "normal, abstaining", Abstaining(normal), RECIPE_BALL


def main(folder: Path, seeds: int, samples: int) -> None:
    test = nuat.load_dataset("digits").test
    for seed in range(seeds):
        for name, network, ball in networks(folder, seed):
            started = time.monotonic()
            # the other network is normally trained, from another seed
            other = trained(folder, "normal", (seed + 1) % max(2, seeds))
            diagnosis = diagnose(network, test, ball, samples=samples, transfer_from=other)
            print(f"\n{name}, seed {seed}, {ball}: {diagnosis.verdict}; {diagnosis.summary}")
            for check in diagnosis.checks:
                numbers = ", ".join(f"{key} {value:.3g}" for key, value in check.numbers.items())
                print(f"  {check.verdict:7} {check.name:13} {numbers}")
            print(f"  {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("folder", type=Path, metavar="RUNS")
    reader.add_argument("--seeds", type=int, default=2)
    reader.add_argument("--samples", type=int, default=100)
    asked = reader.parse_args()
    torch.set_num_threads(1)
    main(asked.folder, asked.seeds, asked.samples)
