"""PerImageNoise: known answers of the published generator, and independence of the batch."""

import math

import pytest
import torch
from torch import Tensor

from nuat.rng import Noise, PerImageNoise, derive_seed, philox

KINDS = ["uniform", "sign", "normal"]
kinds = pytest.mark.parametrize("kind", KINDS)
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: str) -> None:
    """kat_vectors of Random123, philox4x32-10."""
    random = philox(tuple(torch.tensor(c) for c in counter), key)
    assert " ".join(f"{int(word):08x}" for word in random) == words


def test_philox_broadcasts() -> None:
    zero, several = torch.tensor(0), torch.arange(5)[:, None]
    together = philox((torch.arange(3)[None, :], zero, several, zero), (1, 2))
    assert all(word.shape == (5, 3) for word in together)
    alone = philox((torch.tensor(2), zero, torch.tensor(4), zero), (1, 2))
    assert [int(word[4, 2]) for word in together] == [int(word) for word in alone]


def drawn(kind: str, ids: Tensor, seed: int = 0, shape: tuple[int, ...] = (3, 5, 7)) -> Tensor:
    return getattr(PerImageNoise(seed, ids), kind)(torch.zeros(len(ids), *shape))


@kinds
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_same_bits_in_any_batches(kind: str, size: int) -> None:
    ids = torch.arange(100, 107)
    parts = [drawn(kind, part) for part in ids.split(size)]
    assert torch.equal(torch.cat(parts), drawn(kind, ids))


@kinds
def test_the_same_bits_in_any_order_and_company(kind: str) -> None:
    ids = torch.tensor([5, 0, 2**40, 77, 3])
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(drawn(kind, ids[order]), drawn(kind, ids)[order])
    assert torch.equal(drawn(kind, torch.tensor([9, 77]))[1], drawn(kind, ids)[3])


@kinds
def test_the_same_bits_for_ids_of_any_integer_type(kind: str) -> None:
    assert torch.equal(
        drawn(kind, torch.tensor([3], dtype=torch.int32)), drawn(kind, torch.tensor([3]))
    )


@kinds
def test_values_do_not_depend_on_the_pixels(kind: str) -> None:
    ids = torch.arange(4)
    a, b = torch.zeros(4, 1, 3, 3), torch.rand(4, 1, 3, 3).permute(0, 1, 3, 2)
    assert torch.equal(
        getattr(PerImageNoise(0, ids), kind)(a), getattr(PerImageNoise(0, ids), kind)(b)
    )


@kinds
def test_what_tells_two_draws_apart(kind: str) -> None:
    ids, x = torch.arange(2), torch.zeros(2, 3, 5, 7)

    def draw(noise: Noise) -> Tensor:
        return getattr(noise, kind)(x)

    root = PerImageNoise(0, ids)
    draws = {
        "first": draw(root),
        "second": draw(root),
        "other seed": draw(PerImageNoise(1, ids)),
        "fold_in": draw(root.fold_in("restart", 0)),
        "other fold_in": draw(root.fold_in("restart", 1)),
        "folded text": draw(root.fold_in("restart", "1")),
        "fold_in twice": draw(root.fold_in("restart", 0).fold_in("target", 1)),
        "other ids": draw(PerImageNoise(0, ids + 2)),
        "ids beyond 32 bits": draw(PerImageNoise(0, ids + 2**32)),
        "ids beyond 33 bits": draw(PerImageNoise(0, ids + 2**33)),
    }
    flat = [image for values in draws.values() for image in values.flatten(1).unbind()]
    for i, a in enumerate(flat):
        for b in flat[:i]:
            assert float((a == b).float().mean()) < 0.8


def test_fold_in_does_not_depend_on_what_was_drawn_before() -> None:
    x, ids = torch.zeros(2, 9), torch.arange(2)
    early, late = PerImageNoise(0, ids), PerImageNoise(0, ids)
    late.uniform(x)
    assert torch.equal(early.fold_in("a").uniform(x), late.fold_in("a").uniform(x))
    assert torch.equal(early.fold_in("a", 1).uniform(x), late.fold_in("a").fold_in(1).uniform(x))


@kinds
def test_torchs_generator_is_neither_read_nor_moved(kind: str) -> None:
    before = torch.get_rng_state()
    first = drawn(kind, torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(drawn(kind, torch.arange(3)), first)


@kinds
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5,), (3, 8, 8), (1, 7, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_images(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = torch.zeros(6, *shape, dtype=dtype)
    values = getattr(PerImageNoise(0, torch.arange(6)), kind)(x)
    assert values.shape == x.shape and values.dtype == dtype
    assert torch.isfinite(values).all()
    wide = getattr(PerImageNoise(0, torch.arange(6)), kind)(torch.zeros(6, 200, dtype=dtype))
    assert torch.equal(values.flatten(), wide[:, : x[0].numel()].flatten())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "noise", [Noise(), PerImageNoise(0, torch.arange(100))], ids=["torch", "keyed"]
)
def test_uniform_lies_in_zero_to_one(noise: Noise, dtype: torch.dtype) -> None:
    u = noise.uniform(torch.zeros(100, 3000, dtype=dtype))
    assert float(u.min()) >= 0
    assert float(u.max()) < 1


NOISES = pytest.mark.parametrize(
    "noise", [Noise(), PerImageNoise(0, torch.arange(300))], ids=["torch", "keyed"]
)


@NOISES
def test_uniform_moments(noise: Noise) -> None:
    u = noise.uniform(torch.zeros(300, 501)).double().flatten()
    assert float(u.mean()) == pytest.approx(0.5, abs=0.004)
    assert float(u.var()) == pytest.approx(1 / 12, abs=0.002)
    counts = torch.histc(u, 16, 0, 1) / len(u)
    assert counts.tolist() == pytest.approx([1 / 16] * 16, abs=0.004)


@NOISES
def test_sign_is_a_fair_coin(noise: Noise) -> None:
    s = noise.sign(torch.zeros(300, 501))
    assert s.unique().tolist() == [-1, 1]
    assert float(s.mean()) == pytest.approx(0, abs=0.01)


@NOISES
def test_normal_moments(noise: Noise) -> None:
    n = noise.normal(torch.zeros(300, 501)).double().flatten()
    moments = [float((n**p).mean()) for p in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.06)
    within = float((n.abs() < 1).double().mean())
    assert within == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.005)


def test_neighbouring_draws_ids_and_pixels_are_uncorrelated() -> None:
    noise, x = PerImageNoise(0, torch.arange(300)), torch.zeros(300, 500)
    u, again = noise.normal(x), noise.normal(x)
    products = {
        "draws": u * again,
        "ids": u[1:] * u[:-1],
        "pixels": u[:, 1:] * u[:, :-1],
        "blocks": u[:, 4:] * u[:, :-4],
    }
    assert {k: float(v.mean()) for k, v in products.items()} == pytest.approx(
        dict.fromkeys(products, 0), abs=0.012
    )


def test_seed_of_is_a_seed_and_tells_paths_apart() -> None:
    seeds = [
        derive_seed(*path) for path in [(0,), (1,), ("0",), (0, 0), (0, "step", 1, 2), (0, 12)]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "weights") == derive_seed(0, "weights")
