"""Which algorithm for 3x3 convolutions makes float32 faster on a CPU, and how exact it is.

    OMP_NUM_THREADS=1 python benchmarks/convolutions.py | tee benchmarks/convolutions.log
    ... --only "partly filled tiles" | tee benchmarks/convolutions-fill.log

The shapes that ResNet-18 and WideResNet-34-10 consist of, and those of a ResNet on images of 224:
torch's own convolution (oneDNN, direct) in either layout, the Winograd convolution of NNPACK, which
torch carries and does not use, and `nuat.winograd`. Medians of processor time, one after the other.
At last, of the gradient by the image that an attack takes the signs of: how many signs are not
those of float64.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from nuat.models import build
from nuat.network import frozen
from nuat.precision import BFloat16, to_channels_last
from nuat.versions import versions
from nuat.winograd import to_winograd
from nuat.winograd.convolution import Convolution
from nuat.winograd.tiles import OUT

SHAPES = {
    "ResNet-18": [(64, 64, 32), (64, 128, 16), (64, 256, 8), (64, 512, 4)],
    "a quarter of the batch": [(16, 128, 16), (16, 256, 8), (16, 512, 4)],
    "narrower": [(64, 64, 16), (64, 96, 16), (64, 128, 8), (64, 96, 4), (64, 128, 4)],
    "fewer tiles": [(8, 96, 8), (8, 128, 8), (8, 256, 8), (32, 512, 4), (48, 512, 4), (8, 640, 8)],
    "partly filled tiles": [(64, 128, 5), (64, 128, 6), (64, 128, 7), (64, 512, 2), (64, 512, 6)],
    "WideResNet-34-10": [(32, 160, 32), (32, 320, 16), (32, 640, 8)],
    "ResNet-18 of 224x224": [(16, 64, 56), (16, 128, 28), (16, 256, 14), (16, 512, 7)],
}
"""Images, channels in and out, height and width."""


def milliseconds(run: Callable[[], object], rounds: int) -> float:
    """Median processor time."""
    run()
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return 1e3 * statistics.median(taken)


def direct(x: Tensor, w: Tensor) -> Tensor:
    return conv2d(x, w, padding=1)


def nnpack(x: Tensor, w: Tensor) -> Tensor:
    return torch._nnpack_spatial_convolution(x, w, None, [1, 1])


def timed(convolution: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, rounds: int):
    """Forward, the gradient of x alone (an attack), the gradients of x and w (training)."""
    live, weights = x.clone().requires_grad_(), w.clone().requires_grad_()
    attacked, trained = convolution(live, w), convolution(live, weights)
    g = torch.rand_like(attacked)
    yield milliseconds(lambda: convolution(x, w), rounds)
    yield milliseconds(
        lambda: torch.autograd.grad(attacked, live, g, retain_graph=True),
        rounds,
    )
    yield milliseconds(
        lambda: torch.autograd.grad(trained, (live, weights), g, retain_graph=True), rounds
    )


def shape(images: int, channels: int, size: int, rounds: int) -> None:
    x = torch.randn(images, channels, size, size)
    w = torch.randn(channels, channels, 3, 3) / (3 * channels**0.5)
    last = {"memory_format": torch.channels_last}
    arms = {
        "direct": list(timed(direct, x, w, rounds)),
        "channels_last": list(timed(direct, x.to(**last), w.to(**last), rounds)),
        "winograd": list(timed(Convolution.apply, x.to(**last), w.to(**last), rounds)),
    }
    gflop = 2 * 9 * channels**2 * images * size**2 / 1e9
    exact = direct(x.double(), w.double())
    other = milliseconds(lambda: nnpack(x, w), rounds)
    tiles = images * (-(-size // OUT)) ** 2
    print(f"{images:4} x {channels:3} at {size}x{size}, {gflop:.1f} GFLOP, {tiles} tiles;", end=" ")
    print(f"nnpack forward {other:.1f} ms")
    for name, took in arms.items():
        nuats = sum(a * b for a, b in zip((3, 1, 2), took, strict=True))
        print(f"  {name:14}" + "".join(f"{ms:8.1f}" for ms in took) + f"{nuats:9.1f} ms in NuAT")
    for name, found in {"direct": direct(x, w), "winograd": Convolution.apply(x, w)}.items():
        print(f"  {name:14} largest error {(found - exact).abs().max() / exact.abs().max():.0e}")


def signs(images: int, width: int, draws: int) -> None:
    """Of a ResNet-18 at its initial weights, in eval mode."""
    differ: dict[str, list[int]] = {}
    mass: dict[str, list[float]] = {}
    for seed in range(draws):
        torch.manual_seed(seed)
        f = build(f"resnet18(width={width})", 10, 3).double()
        x, y = torch.rand(images, 3, 32, 32, dtype=torch.float64), torch.arange(images) % 10
        single = copy.deepcopy(f).float()
        last = copy.deepcopy(single)
        to_channels_last(last, x.float())
        winograd = copy.deepcopy(last)
        to_winograd(winograd)
        arms: dict[str, nn.Module] = {"direct": single, "channels_last": last}
        arms |= {"channels_last, winograd": winograd, "bf16": BFloat16(single)}
        exact = gradient(f, x, y)
        for name, g in arms.items():
            flipped = gradient(g, x.float(), y).double().sign() != exact.sign()
            differ.setdefault(name, []).append(int(flipped.sum()))
            mass.setdefault(name, []).append(float(exact[flipped].abs().sum() / exact.abs().sum()))
    print(f"of {exact.numel()} each, in {draws} draws")
    for name, counts in differ.items():
        print(f"{name:24} {counts}, of |gradient| {max(mass[name]):.1e} at most")


def gradient(f: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    with frozen(f) as g:
        return torch.autograd.grad(cross_entropy(g(x), y), x)[0]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--tiny", action="store_true", help="an exercise of seconds")
    reader.add_argument("--only", choices=SHAPES, help="these shapes alone, and no signs")
    asked = reader.parse_args()
    tiny = asked.tiny
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(versions())
    print(
        "ms: forward, gradient of x, gradients of x and w; 3, 1 and 2 of which NuAT has in a step"
    )
    chosen = {asked.only: SHAPES[asked.only]} if asked.only else SHAPES
    for network, shapes in ({"tiny": [(2, 8, 8)]} if tiny else chosen).items():
        print(network)
        for each in shapes:
            shape(*each, rounds=1 if tiny else 9)
    if asked.only:
        return
    print("\nsigns of the gradient by the image, ResNet-18, against float64")
    signs(*((8, 16, 2) if tiny else (64, 64, 5)))


if __name__ == "__main__":
    main()
