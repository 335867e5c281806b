"""Would another algorithm for 3x3 convolutions make float32 faster on a CPU?

    OMP_NUM_THREADS=1 python benchmarks/convolutions.py | tee benchmarks/convolutions.log

The four shapes that ResNet-18 consists of, forward: torch's own convolution (oneDNN, direct), the
Winograd convolution of NNPACK, which torch carries and does not use, and F(4x4, 3x3) of
arXiv:1509.09308 in products of matrices, which multiplies a quarter as often. nuat uses torch's.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from nuat.versions import versions

SHAPES = (64, 32), (128, 16), (256, 8), (512, 4)
"""Channels in and out, height and width."""

_B = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
B, G, A = (torch.kron(one, one).float() for one in (_B, _G, _A))


def transformed(w: Tensor) -> Tensor:
    """Weights [O, I, 3, 3] in the basis of the tiles, [36, I, O]: once for all batches."""
    outputs, inputs = w.shape[:2]
    return (G @ w.permute(2, 3, 1, 0).reshape(9, -1)).view(36, inputs, outputs)


def winograd(x: Tensor, u: Tensor) -> Tensor:
    """The convolution of x [B, I, 4h, 4w], padded by 1, in tiles of 6x6 that give 4x4."""
    inputs, outputs = u.shape[1:]
    rows, columns = x.shape[2] // 4, x.shape[3] // 4
    padded = functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    s = padded.stride()
    tiles = padded.as_strided(
        (6, 6, len(x), rows, columns, inputs), (s[1], s[2], s[0], 4 * s[1], 4 * s[2], 1)
    )
    v = (B @ tiles.reshape(36, -1)).view(36, -1, inputs)
    y = (A @ torch.bmm(v, u).view(36, -1)).view(4, 4, len(x), rows, columns, outputs)
    return y.permute(2, 5, 3, 0, 4, 1).reshape(len(x), outputs, 4 * rows, 4 * columns)


def seconds(run: Callable[[], Tensor], rounds: int = 9) -> float:
    """Median processor time."""
    run()
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


@torch.no_grad()
def compare(batch: int, channels: int, side: int) -> None:
    x = torch.randn(batch, channels, side, side)
    w = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
    x_last, u = x.contiguous(memory_format=torch.channels_last), transformed(w)
    arms = {
        "direct": lambda: functional.conv2d(x, w, padding=1),
        "nnpack": lambda: torch._nnpack_spatial_convolution(x, w, None, 1, 1),
        "winograd": lambda: winograd(x_last, u),
    }
    exact = functional.conv2d(x.double(), w.double(), padding=1)
    operations = 2 * 9 * channels**2 * side**2 * batch
    first = seconds(arms["direct"])
    print(f"{batch:4} x {channels:3} at {side:2}x{side:<2} {operations / first / 1e9:6.0f}", end="")
    for name, arm in arms.items():
        error = float((arm() - exact).abs().max() / exact.abs().max())
        taken = first if name == "direct" else seconds(arm)
        print(f"   {name} {first / taken:4.2f}, error {error:.0e}", end="")
    print(flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(versions())
    print(
        "batch x channels, GFLOP/s of the direct one; times as fast as it, largest error / largest"
    )
    for batch in (8, 64):
        for channels, side in SHAPES:
            compare(batch, channels, side)
