"""What the sizes of a network may be."""

from nuat.errors import InputError


def check_sizes(**sizes: int) -> None:
    """Raise InputError unless each is a whole number from 1 up."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{name} is {size!r}, but must be a whole number from 1 up")
