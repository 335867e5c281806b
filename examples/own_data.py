"""A data set of your own, by its name: here two classes of the bundled digits.

nuat train nuat-wa --import examples/own_data.py --data even-or-odd \\
    --model 'small-cnn(width=16)' --eps 0.15 --epochs 5 --out runs/parity
"""

from nuat import Splits, register_dataset
from nuat.data import as_dataset, load_dataset


@register_dataset("even-or-odd")
def even_or_odd() -> Splits:
    """The digits, labeled by whether they are odd."""
    digits = load_dataset("digits")
    train, val, test = (as_dataset((split.x, split.y % 2)) for split in
                        (digits.train, digits.val, digits.test))  # fmt: skip
    return Splits(train, val, test, ("even", "odd"), "even-or-odd")
