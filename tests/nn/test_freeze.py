"""Freezing a network, applying a BatchNorm update again, and checks of images and logits."""

import copy
import re
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nuat import InputError, NonFiniteError, frozen_eval
from nuat.data.validation import check_images, check_labels
from nuat.nn.batchnorm import BatchNormUpdate, record_bn_update
from nuat.nn.freeze import unwrap_model
from nuat.nn.validation import check_logits
from nuat.runtime.device import device_of


def mixed() -> nn.Module:
    """A network in train mode with one layer in eval mode and one weight that is fixed."""
    f = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    f.train()
    f[3][1].eval()
    f[0].weight.requires_grad_(False)
    return f


def state(f: nn.Module) -> tuple[list[bool], list[bool], dict[str, Tensor]]:
    tensors = {name: value.clone() for name, value in f.state_dict().items()}
    return [m.training for m in f.modules()], [w.requires_grad for w in f.parameters()], tensors


def same(a: tuple, b: tuple) -> bool:
    return a[:2] == b[:2] and all(torch.equal(a[2][name], b[2][name]) for name in a[2] | b[2])


X = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))


# ---- frozen


def test_frozen_is_in_eval_mode_and_asks_for_no_gradient_but_the_images() -> None:
    f = mixed()
    with frozen_eval(f) as g:
        assert g is f
        assert not any(module.training for module in g.modules())
        assert not any(weight.requires_grad for weight in g.parameters())
        x = X.clone().requires_grad_()
        g(x).sum().backward()
        assert float(x.grad.abs().sum()) > 0
    assert all(weight.grad is None for weight in f.parameters())


def test_frozen_gives_everything_back_and_leaves_the_statistics() -> None:
    f = mixed()
    before = state(f)
    with frozen_eval(f) as g:
        g(X)
    assert same(state(f), before)
    f(X)
    assert not same(state(f), before)  # the comparison can tell


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_frozen_gives_everything_back_after_an_error(error: type[BaseException]) -> None:
    f = mixed()
    before = state(f)
    with pytest.raises(error), frozen_eval(f) as g:
        g(X)
        raise error
    assert same(state(f), before)


def test_frozen_within_frozen_stays_frozen_until_the_last_one_ends() -> None:
    f = mixed()
    before = state(f)
    with frozen_eval(f):
        with pytest.raises(ValueError, match="inside"), frozen_eval(f) as g:
            g(X)
            raise ValueError("inside")
        assert not any(module.training for module in f.modules())
        assert not any(weight.requires_grad for weight in f.parameters())
    assert same(state(f), before)


def test_a_graph_begun_before_frozen_still_reaches_the_weights() -> None:
    """As in NuAT: the clean pass, then the attack, then the loss on both."""
    f, alone = mixed(), mixed()
    alone.load_state_dict(f.state_dict())
    for each in (f, alone):
        each[3][2].p = 0.0
    z = f(X)
    with frozen_eval(f) as g:
        g(X + 0.1)
    z.square().sum().backward()
    alone(X).square().sum().backward()
    for mine, its in zip(f.parameters(), alone.parameters(), strict=True):
        assert (mine.grad is None) == (its.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, its.grad)


def test_frozen_looks_inside_distributed_data_parallel() -> None:
    f = nn.Linear(2, 2)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapper = DistributedDataParallel(f)
        assert unwrap_model(wrapper) is f and unwrap_model(f) is f
        with frozen_eval(wrapper) as g:
            assert g is f and not f.training and not f.weight.requires_grad
        assert f.training and f.weight.requires_grad
    finally:
        dist.destroy_process_group()


def test_device_of() -> None:
    assert device_of(nn.Linear(2, 2)) == device_of(nn.Flatten()) == torch.device("cpu")
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm2d(2, affine=False, device="meta")) == torch.device("meta")


# ---- BatchNormUpdate


class Twice(nn.Module):
    """A network that passes the same BatchNorm twice in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(3 * self.norm(x) + 1)


def normed(momentum: float | None) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 5),
        nn.BatchNorm1d(5, momentum=momentum),
        nn.ReLU(),
        nn.BatchNorm1d(5, momentum=0.3, affine=False),
        nn.BatchNorm1d(5, track_running_stats=False),
        nn.Linear(5, 2),
    )


def with_one_in_eval_mode() -> nn.Module:
    f = normed(0.1)
    f[3].eval()
    return f


NETWORKS = {
    "momentum 0.1": lambda: normed(0.1),
    "momentum 0.9": lambda: normed(0.9),
    "momentum 1": lambda: normed(1.0),
    "momentum 0": lambda: normed(0.0),
    "cumulative": lambda: normed(None),
    "one in eval mode": with_one_in_eval_mode,
    "a layer passed twice": lambda: nn.Sequential(nn.Linear(6, 5), Twice()),
    "no BatchNorm": lambda: nn.Linear(6, 2),
}


@pytest.mark.parametrize("warm", [0, 3], ids=["fresh", "warm"])
@pytest.mark.parametrize("between", [0, 1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_apply_again_equals_a_second_pass(network: str, between: int, warm: int) -> None:
    f = NETWORKS[network]()
    for _ in range(warm):
        f(2 * torch.randn(32, 6) + 1)
    twin = copy.deepcopy(f)
    x, others = 3 * torch.randn(32, 6) - 2, torch.randn(between, 32, 6)
    with record_bn_update(f) as record:
        f(x)
    twin(x)
    for other in others:
        f(other)
        twin(other)
    record.apply_again()
    twin(x)
    for (name, updated), ran in zip(f.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(updated.double(), ran.double(), rtol=1e-5, atol=1e-6), name
        if name.endswith("num_batches_tracked"):
            assert torch.equal(updated, ran)


def test_apply_again_works_after_backward() -> None:
    f = normed(0.1)
    with record_bn_update(f) as record:
        z = f(torch.randn(32, 6) + 4)
    once = f[1].running_mean.clone()
    z.sum().backward()
    record.apply_again()
    assert float((f[1].running_mean - once).abs().max()) > 1e-3
    assert int(f[1].num_batches_tracked) == 2


def test_only_layers_in_train_mode_are_recorded() -> None:
    assert len(BatchNormUpdate(with_one_in_eval_mode()).layers) == 1
    assert BatchNormUpdate(normed(0.1).eval()).layers == []


# ---- check_images


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 3, 4, 4),
        torch.zeros(1, 1, 1, 1),
        torch.ones(2, 1, 4, 4, dtype=torch.float64),
        torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8),
    ],
)
def test_images_that_are_fine(x: Tensor) -> None:
    check_images(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.linspace(0, 254, 96).reshape(2, 3, 4, 4),
            r"from [\d.]+ to 25\d[\d.]*; divide by 255\?",
        ),
        (torch.randn(2, 3, 8, 8), r"from -[\d.]+ to [\d.]+; are they normalized\?"),
        (torch.linspace(-0.01, 0.9, 96).reshape(2, 3, 4, 4), r"are they normalized\?"),
        (256 + 100 * torch.rand(2, 3, 4, 4), r"must lie in \[0, 1\]"),
        (torch.full((2, 3, 4, 4), torch.nan), r"from nan to nan"),
        (torch.full((2, 3, 4, 4), torch.inf), r"from inf to inf"),
        (torch.rand(0, 3, 4, 4), r"no images"),
        (torch.rand(2, 3, 4), r"torch.float32 of shape \[2, 3, 4\], not floats \[B, C, H, W\]"),
        (torch.rand(4), r"of shape \[4\]"),
        (torch.tensor(0.5), r"of shape \[\]"),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64), r"torch.int64 of shape"),
        (torch.ones(2, 3, 4, 4, dtype=torch.bool), r"torch.bool of shape"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_images_that_are_not(x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_images(x)


def test_one_nan_pixel_is_seen() -> None:
    x = torch.rand(4, 3, 4, 4)
    x[3, 2, 1, 0] = torch.nan
    with pytest.raises(InputError, match="nan"):
        check_images(x)


# ---- check_labels


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_labels_that_are_fine(dtype: torch.dtype) -> None:
    check_labels(torch.tensor([0, 2, 1], dtype=dtype), 3, 3)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2, 3], r"from 1 to 3, but with 3 classes must lie in 0 to 2; do they count from 1\?"),
        ([2, 2, 3], r"do they count from 1\?"),
        ([0, 1, 3], r"from 0 to 3, but with 3 classes must lie in 0 to 2$"),
        ([1, 2, 4], r"from 1 to 4, but with 3 classes must lie in 0 to 2$"),
        ([-1, 0, 1], r"from -1 to 1"),
        ([0.0, 1.5, 2.0], "not all of them are whole numbers"),
        ([0, 1], r"of shape \[2\], not integers \[3\]"),
        ([[0], [1], [2]], r"of shape \[3, 1\], not integers \[3\]"),
        ([], r"of shape \[0\], not integers \[3\]"),
    ],
)
def test_labels_that_are_not(y: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_labels(torch.tensor(y), 3, 3)


def test_no_labels_at_all_are_refused_in_words() -> None:
    with pytest.raises(InputError):
        check_labels(torch.empty(0, dtype=torch.int64), 0, 3)


# ---- check_logits


class Returns(nn.Module):
    """A network that returns whatever `what` makes of linear logits."""

    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.what = what
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> object:
        return self.what(self.net(x))


SMALL = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def test_logits_that_are_fine_leave_the_network_as_it_was(linear) -> None:
    f = nn.Sequential(linear(3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before = state(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_logits(f, SMALL, 3)
    assert same(state(f), before)
    assert all(weight.grad is None for weight in f.parameters())


def nan_in_one(z: Tensor) -> Tensor:
    return z.index_fill(0, torch.tensor([4]), torch.nan)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (lambda z: (z, z), InputError, "returns a tuple, not a tensor of logits"),
        (lambda z: {"logits": z}, InputError, "returns a dict, .*wrap it so that it returns the"),
        (lambda z: [z], InputError, "returns a list"),
        (lambda z: None, InputError, "returns a NoneType"),
        (lambda z: z[:, :2], InputError, r"\[5, 2\] for 5 images.*not logits \[5, 3\]"),
        (lambda z: z.sum(1), InputError, r"\[5\] for 5 images.*not logits \[5, 3\]"),
        (lambda z: z[:1], InputError, r"\[1, 3\] for 5 images.*not logits \[5, 3\]"),
        (lambda z: z[..., None], InputError, r"\[5, 3, 1\] for 5 images"),
        (nan_in_one, NonFiniteError, "NaN or infinite logits"),
        (lambda z: z / 0, NonFiniteError, "NaN or infinite logits"),
    ],
)
def test_what_is_not_logits(
    what: Callable[[Tensor], object], error: type[Exception], message: str
) -> None:
    f = Returns(what)
    with pytest.raises(error, match=message):
        check_logits(f, SMALL, 3)
    assert f.training and all(weight.requires_grad for weight in f.parameters())


def test_images_the_network_does_not_take(linear) -> None:
    with pytest.raises(InputError, match=re.escape("does not take images [5, 1, 2, 2]: ")):
        check_logits(linear(3, (3, 2, 2)), SMALL, 3)


@pytest.mark.parametrize(
    ("what", "warned"),
    [
        (lambda z: z.softmax(1), True),
        (lambda z: (50 * z).softmax(1), True),
        (lambda z: z, False),
        (lambda z: z.sigmoid(), False),
        (lambda z: z.relu(), False),
        (lambda z: z.softmax(1) - 0.5, False),
    ],
)
def test_a_softmax_at_the_end_is_noticed(what: Callable[[Tensor], object], warned: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_logits(Returns(what), SMALL, 3)
    assert ["seems to end in a softmax" in str(w.message) for w in caught] == [True] * warned
