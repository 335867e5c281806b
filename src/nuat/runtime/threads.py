"""How many threads torch uses on a CPU."""

from __future__ import annotations

import torch

from nuat.errors import InputError


def configure_threads(threads: int | None) -> None:
    """Set the number of threads that torch uses on a CPU; None keeps torch's own choice.

    Torch's own choice is OMP_NUM_THREADS or, without it, the number of cores. Another number of
    threads adds numbers in another order, so results differ in the last bits.

    Raises:
        InputError: `threads` is not a whole number from 1 up.
    """
    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}, but must be a whole number from 1 up")
    torch.set_num_threads(threads)
