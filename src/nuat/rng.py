"""Random numbers: torch's generator in training, counter-based noise per image in evaluation.

PerImageNoise is a pure function of (seed, image, attack, target, restart, draw), so that the result
for an image does not depend on batch size, order, number of devices or interruptions.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF


class Noise:
    """Noise from torch's global generator on the device of `x`."""

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1), of the shape of `x`."""
        return torch.rand_like(x)

    def sign(self, x: Tensor) -> Tensor:
        """+1 or -1 with probability 1/2 each, of the shape of `x`."""
        return torch.empty_like(x).bernoulli_(0.5).mul_(2).sub_(1)

    def normal(self, x: Tensor) -> Tensor:
        """N(0, 1), of the shape of `x`."""
        return torch.randn_like(x)

    def fold_in(self, *key: int | str) -> Noise:
        """The noise of a named part of the work, such as a restart; here the same generator."""
        return self

    def select(self, indices: Tensor) -> Noise:
        """The noise of the images at these row indices; here the same generator."""
        return self


class PerImageNoise(Noise):
    """Noise keyed to the image: the same bits in any batch, in any order and on any device.

    Philox4x32-10 (Salmon et al., SC 2011), in int64 tensor arithmetic. The key is a hash of the
    seed and of everything folded in; the counter is (block of four pixels, draw, image id).
    """

    def __init__(self, seed: int, ids: Tensor, *path: int | str):
        """Take `ids` [B]: integer indices of the images in their data set."""
        self.seed, self.ids, self.path, self.num_draws = int(seed), ids, path, 0

    def fold_in(self, *key: int | str) -> PerImageNoise:
        """An independent stream for a named part of the work, such as ("restart", 2)."""
        return PerImageNoise(self.seed, self.ids, *self.path, *key)

    def select(self, indices: Tensor) -> PerImageNoise:
        """The streams of the images at these row indices, continued from here."""
        selected = PerImageNoise(self.seed, self.ids.to(indices.device)[indices], *self.path)
        selected.num_draws = self.num_draws
        return selected

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1) on the grid of 2**-24, of the shape of `x`."""
        below_one = 1 - torch.finfo(x.dtype).eps / 2
        return self._fill(x, self._words(x) >> 8, 2.0**-24).clamp_max(below_one)

    def sign(self, x: Tensor) -> Tensor:
        """+1 or -1, of the shape of `x`."""
        return self._fill(x, (self._words(x) >> 31) * 2 - 1, 1.0)

    def normal(self, x: Tensor) -> Tensor:
        """N(0, 1) by the Box-Muller transform in float64, of the shape of `x`."""
        radius = (self._words(x).double() + 1) * 2.0**-32
        angle = self._words(x).double() * (2 * math.pi * 2.0**-32)
        return self._fill(x, (-2 * radius.log()).sqrt() * angle.cos(), 1.0)

    def _words(self, x: Tensor) -> Tensor:
        """32-bit words [B, N] as int64, N the values of an image; advances the counter."""
        size = x[0].numel()
        blocks = torch.arange((size + 3) // 4, device=x.device)[None, :]
        self.ids = self.ids.to(x.device, torch.int64)  # so that a GPU waits for the first draw only
        ids, draw = self.ids[:, None], torch.full((), self.num_draws, device=x.device)
        self.num_draws += 1
        text = repr((self.seed, *self.path)).encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
        words = philox((blocks, draw, ids & _WORD, ids >> 32), key)
        return torch.stack(words, dim=-1).reshape(len(ids), -1)[:, :size]

    @staticmethod
    def _fill(x: Tensor, numbers: Tensor, scale: float) -> Tensor:
        exact = numbers if numbers.is_floating_point() else numbers.to(torch.float32)
        return (exact * scale).reshape(x.shape).to(x.dtype)


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: map a 128-bit counter (four words) and a 64-bit key to four random words.

    The words are int64 tensors that hold 32 bits each and broadcast against each other. A 64-bit
    product may overflow into the sign bit, which leaves all of its bits correct.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> 32) & _WORD ^ c1 ^ k0,
            p1 & _WORD,
            (p0 >> 32) & _WORD ^ c3 ^ k1,
            p0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def derive_seed(*path: int | str) -> int:
    """A seed for a named part of the work: a hash of its path, an integer from 0 below 2**63."""
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch, numpy and Python's random within the block, and restore their states after it.

    Args:
        seed: the seed, from 0.
        device: a device whose generator is restored besides that of the CPU.
    """
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)
