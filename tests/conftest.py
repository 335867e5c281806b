"""What every test shares: a seed, one thread, and a network that is easy to reason about."""

import math
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from nuat.runtime.signals import SIGNALS
from tests.command_line import (  # noqa: F401  # these are fixtures
    call,
    in_empty,
    in_samples,
    in_samples_copy,
    sample_files,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_data_folder() -> Iterator[None]:
    """--data-dir sets $NUAT_DATA for the process; the next test starts without it."""
    before = os.environ.get("NUAT_DATA")
    yield
    if before is None:
        os.environ.pop("NUAT_DATA", None)
    else:
        os.environ["NUAT_DATA"] = before


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """`linear(classes, shape)`: images [B, *shape] -> W x + b, logits [B, classes]."""

    def build(classes: int = 3, shape: tuple[int, ...] = (1, 2, 2)) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))

    return build


@pytest.fixture
def real() -> str:
    """The folder of real data sets; skips where there is none."""
    folder = os.environ.get("NUAT_DATA")
    if not folder:
        pytest.skip("NUAT_DATA is not set: it should name the folder of the real data sets")
    return folder


@pytest.fixture(autouse=True, scope="session")
def signals_are_not_ignored() -> Iterator[None]:
    """A shell ignores SIGINT for what it starts in the background, and nohup ignores SIGHUP."""
    defaults = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        if handler is not None:  # one that Python has not installed
            signal.signal(number, handler)
