"""The outcome of one run of an attack on one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Passes = Sequence[tuple[int, int]]
"""Forward and backward passes up to each iterate."""


@dataclass
class AttackResult:
    """The outcome of one run for each of B images.

    Attributes:
        x_adv: the adversarial point, or the last iterate, [B, C, H, W].
        adversarial: whether the network misclassifies `x_adv`, [B] bool; see `is_robust`.
        step: which iterate `x_adv` is, 0 for the start, [B].
        forwards, backwards: passes through the network up to that iterate, [B].
        margin: max_{j != y} z_j - z_y, [B]: at `x_adv` where the image is misclassified, otherwise
            the largest that the search has seen (-inf if it has seen no point in the ball).
        snapshots: for each snapshot, whether the image is robust at that iterate, [B] bool.
        bad_gradients: the number of input gradients with NaN or infinite entries.
    """

    x_adv: Tensor
    adversarial: Tensor
    step: Tensor
    forwards: Tensor
    backwards: Tensor
    margin: Tensor
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    bad_gradients: int = 0

    @staticmethod
    def initial(x: Tensor) -> AttackResult:
        """The result before the first iterate."""
        zeros = torch.zeros(len(x), dtype=torch.long, device=x.device)
        unknown = x.new_full((len(x),), torch.nan)
        return AttackResult(x.clone(), zeros.bool(), zeros, zeros.clone(), zeros.clone(), unknown)

    def set_rows(self, indices: Tensor, adversarial: bool, **values: Tensor) -> None:
        """Store the outcome of the images at these row indices."""
        self.adversarial.index_fill_(0, indices, adversarial)  # a GPU waits for `[indices] = ...`
        for name, value in values.items():
            getattr(self, name)[indices] = value


def passes_at(steps: Tensor, passes: Passes) -> dict[str, Tensor]:
    """The step numbers with the forward and backward passes up to them."""
    forwards, backwards = torch.tensor(passes, device=steps.device)[steps].unbind(1)
    return {"step": steps, "forwards": forwards, "backwards": backwards}
