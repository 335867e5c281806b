"""Quick attacks for an upper bound on robust accuracy: minimum margins, and MALT's targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.apgd import APGDT
from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.limits import MAX_TARGETS
from nuat.attacks.state import input_gradient
from nuat.losses import targeted_margin
from nuat.nn.freeze import forward_padded
from nuat.threat_models import Ball

UPPER_BOUND = (
    "a quick attack: its robust accuracy is an upper bound; a verdict needs autoattack, which may "
    "break more images"
)


@dataclass(frozen=True)
class MM(APGDT):
    """MM5, the minimum-margin attack: APGD on the margin of one target class after another.

        maximize z_t - z_y   for t = the 5 most likely other classes, one after another

    The margin is that of the logits as they are, without the divisor of the targeted DLR loss. The
    attack on an image stops once it is misclassified, as any class. MM3 is `mm5(targets=3)`, and
    MM+ is `mm5-100(targets=9)`.

    Source: arXiv:2206.07314 (ICML 2022). The loss, the order of the targets, and 20 steps with 5
    targets are those of the code that OODRobustBench (ICML 2024) evaluates with; the text of the
    paper was not compared.

    Attributes:
        steps: number of steps for each target.
        targets: number of target classes; with K classes at most K - 1 are used.
    """

    steps: int = 20
    targets: int = 5

    min_classes = 2

    def objective(self, z: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return targeted_margin(z, y, target)

    def notes(self) -> list[str]:
        return [UPPER_BOUND]


@dataclass(frozen=True)
class APGDMALT(APGDT):
    """Targeted APGD with the targets in the order of MALT, the nearest by linearization first.

        score_j = (z_j - z_y) / |grad (z_j - z_y)|_*   at the clean image, largest first

    |.|_* is the dual norm of the ball's norm, so -score_j is the distance from the image to the
    boundary of class j if the network were linear. The order costs one forward pass for each image
    and one backward pass for each candidate, which the passes of a result do not contain.

    Source: arXiv:2407.02240. The scores of 100 candidates and 9 targets are reconstructed from
    summaries of the paper; the dual norm is ours.

    Attributes:
        candidates: how many of the most likely other classes get a score; the others follow them.
    """

    candidates: int = 100

    limits = (("candidates", 1, MAX_TARGETS),)

    def rank_targets(self, model: nn.Module, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        likely = classes_by_logit(z, y)
        candidates, others = likely[:, : self.candidates], likely[:, self.candidates :]
        scores = linearized_margins(model, x, y, candidates, self.ball)
        order = scores.argsort(dim=1, descending=True, stable=True)
        return torch.cat([candidates.gather(1, order), others], 1)

    def notes(self) -> list[str]:
        return [UPPER_BOUND]


QUICK_ATTACKS = (MM, APGDMALT)


def linearized_margins(
    model: nn.Module, x: Tensor, y: Tensor, classes: Tensor, ball: Ball
) -> Tensor:
    """(z_j - z_y) / (|grad (z_j - z_y)|_* + 1e-12) for each image and class j, [B, J].

    Args:
        model: a network with frozen weights.
        x: images in [0, 1], [B, C, H, W].
        y: labels [B].
        classes: the classes j, [B, J].
        ball: the threat model, which has the dual norm.
    """
    x = x.detach().requires_grad_()
    scores = []
    with torch.enable_grad():
        z = forward_padded(model, x)
        for j in range(classes.shape[1]):
            margin = targeted_margin(z, y, classes[:, j])
            gradient = input_gradient(margin.sum(), x, retain_graph=True)
            dual_norm = torch.linalg.vector_norm(gradient.flatten(1), ball.dual_order, dim=1)
            scores.append(margin.detach() / (dual_norm + 1e-12))
    return torch.stack(scores, 1)
