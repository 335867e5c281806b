"""The handwritten digits that scikit-learn bundles."""

from __future__ import annotations

import torch

from nuat.data.splits import InMemoryDataset, Splits
from nuat.errors import InputError


def digits() -> Splits:
    """1,797 real handwritten digits, 8x8, grey: 1,197 train, 200 val, 400 test.

    Of nine images in a row the first two are for testing and the third is for validation. Pixels
    are the published 0..16, divided by 16.
    Raises InputError if scikit-learn, the `demo` extra, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the digits come with scikit-learn, which is not installed: pip install 'nuat[demo]'"
        ) from None
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(bunch.target, dtype=torch.int64)
    ninth = torch.arange(len(y)) % 9
    train, val, test = (
        InMemoryDataset(x[part], y[part]) for part in (ninth > 2, ninth == 2, ninth < 2)
    )
    return Splits(train, val, test, tuple("0123456789"), "digits")
