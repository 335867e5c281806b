"""The share of a batch that one process trains on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class BatchShare:
    """The share of a batch that this process trains on: all of it.

    In training on several ranks, `nuat.training.distributed.RankShare` is used instead. There each
    rank has some of the images. The loss that a method yields is the mean over these, and the
    training loop averages losses and gradients over the ranks. A method therefore needs this class
    only for what is not a mean over images, such as the nuclear norm of the batch.
    """

    @property
    def weight(self) -> float:
        """The weight of this share's loss in the mean over the ranks; 1 if all shares are equal."""
        return 1.0

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows [B, ...] of the whole batch, in order, given those of this share.

        The gradient is exact: averaged over the ranks, that of a function of the whole batch.
        """
        return rows

    def mean(self, values: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the means over the whole batch, detached, given the means over this share."""
        return values

    def average_gradients(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients of the loss of the whole batch.

        Those given are of `weight` times the loss of this share. The weight has to be in the loss,
        because synchronized BatchNorm adds up the gradients of all ranks.
        """
        return gradients
