"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import torch

from nuat.data.splits import InMemoryDataset, Splits
from nuat.runtime.extras import import_extra


def load_digits() -> Splits:
    """1,797 handwritten digits, 8x8, gray: 1,197 train, 200 val, 400 test.

    Of every nine consecutive images the first two are test images and the third is a validation
    image (ours). Pixels are the published 0..16, divided by 16.

    Raises:
        InputError: scikit-learn, the `demo` extra, is not installed.
    """
    digits = import_extra("demo", "the data set digits", "sklearn.datasets").load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target, dtype=torch.int64)
    position = torch.arange(len(y)) % 9
    train, val, test = (
        InMemoryDataset(x[part], y[part]) for part in (position > 2, position == 2, position < 2)
    )
    return Splits(train, val, test, tuple("0123456789"), "digits")
