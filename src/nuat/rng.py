"""Where randomness comes from: torch's generator in training, keyed noise in evaluation.

PerImageNoise noise is a pure function of (seed, image, attack, restart, draw), so that the verdict on an
image does not depend on batch size, order, number of devices or an interruption.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF


class Noise:
    """Noise from torch's global generator on the device of `x`."""

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1), one number for each of `x`."""
        return torch.rand_like(x)

    def sign(self, x: Tensor) -> Tensor:
        """+1 or -1 with probability 1/2 each, one for each number of `x`."""
        return torch.empty_like(x).bernoulli_(0.5).mul_(2).sub_(1)

    def normal(self, x: Tensor) -> Tensor:
        """N(0, 1), one number for each of `x`."""
        return torch.randn_like(x)

    def fork(self, *key: int | str) -> Noise:
        """The noise of a named part of the work, such as a restart; here the same generator."""
        return self

    def take(self, places: Tensor) -> Noise:
        """The noise of some of the images, from here on; here the same generator."""
        return self


class PerImageNoise(Noise):
    """Noise that belongs to the image: the same bits in whatever batch, order or device.

    Philox4x32-10 (Salmon et al., SC 2011), in int64 tensor arithmetic. The key is a hash of the
    seed and of the fork's path; the counter is (block of four pixels, draw, image id).
    """

    def __init__(self, seed: int, ids: Tensor, *path: int | str):
        """`ids` [B]: the images' places in their data set, as integers."""
        self.seed, self.ids, self.path, self.draws = int(seed), ids, path, 0

    def fork(self, *key: int | str) -> PerImageNoise:
        """An independent stream for a named part of the work."""
        return PerImageNoise(self.seed, self.ids, *self.path, *key)

    def take(self, places: Tensor) -> PerImageNoise:
        """The streams of the images at these places, from here on."""
        taken = PerImageNoise(self.seed, self.ids.to(places.device)[places], *self.path)
        taken.draws = self.draws
        return taken

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1) on the grid of 2**-24, one number for each of `x`."""
        below_one = 1 - torch.finfo(x.dtype).eps / 2
        return self._fill(x, self._words(x) >> 8, 2.0**-24).clamp_max(below_one)

    def sign(self, x: Tensor) -> Tensor:
        """+1 or -1, one for each number of `x`."""
        return self._fill(x, (self._words(x) >> 31) * 2 - 1, 1.0)

    def normal(self, x: Tensor) -> Tensor:
        """N(0, 1) by Box and Muller in float64, one number for each of `x`."""
        radius = (self._words(x).double() + 1) * 2.0**-32
        angle = self._words(x).double() * (2 * math.pi * 2.0**-32)
        return self._fill(x, (-2 * radius.log()).sqrt() * angle.cos(), 1.0)

    def _words(self, x: Tensor) -> Tensor:
        """[B, N] words of 32 bits, N the numbers in an image."""
        size = x[0].numel()
        blocks = torch.arange((size + 3) // 4, device=x.device)[None, :]
        ids = self.ids.to(x.device, torch.int64)[:, None]
        draw = torch.tensor(self.draws, device=x.device)
        self.draws += 1
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
    """Philox4x32-10: four words of a 128-bit counter and a 64-bit key to four random words.

    The words are int64 tensors that hold 32 bits each and broadcast against each other; 64-bit
    products wrap, which leaves their bits right.
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
    """A seed for a named part of the work: a hash of its path, as a number below 2**63."""
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
