"""The nearest point of a hyperplane within the box [0, 1]^n, in linf and in L2, without sorting.

Both come down to one number t for each image. With w turned so that the side <w, x> + b > 0 has to
be left, moving pixel i by m_i(t) against the sign of w_i, as far as the box has room r_i for it,
gains |w_i| m_i(t); the gain grows with t, is concave and piecewise linear, and Newton's method from
the left finds its level in a few exact steps. No sorting, no shape that depends on the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nuat.threat_models import Ball, Linf

NEWTON_STEPS = 25
"""More than Newton needs to reach the last bits; a step that has arrived stays."""


def project_to_hyperplane(x: Tensor, w: Tensor, b: Tensor, ball: Ball) -> Tensor:
    """The shortest d with <w, x + d> + b = 0 and x + d in [0, 1]; if there is none, the nearest.

    Args:
        x: points in [0, 1], [B, ...].
        w: normals, of the same shape.
        b: offsets [B].
        ball: its norm says what is short: linf or L2.

    Returns:
        d, of the shape of x. If no point of the box is on the hyperplane, x + d is the corner that
        comes nearest to it.
    """
    flat, normal = x.flatten(1), w.flatten(1)
    level = (flat * normal).sum(1) + b
    normal = normal * torch.where(level < 0, -1.0, 1.0)[:, None]
    weight, room = normal.abs(), torch.where(normal > 0, flat, 1 - flat)
    speed = torch.ones_like(weight) if isinstance(ball, Linf) else weight
    move = _meet(weight, room, speed, level.abs())
    return (-normal.sign() * move).reshape(x.shape)


def _meet(weight: Tensor, room: Tensor, speed: Tensor, level: Tensor) -> Tensor:
    """min(t * speed, room) at the t where it gains `level`: sum_i weight_i min(t speed_i, room_i).

    Newton's method on a concave, increasing, piecewise linear function, from t = 0: it never passes
    the root, and is there once it is on the right piece. Out of reach, t is infinite.
    """
    t = torch.zeros_like(level)
    for _ in range(NEWTON_STEPS):
        moving = t[:, None] * speed < room
        gained = (weight * torch.where(moving, t[:, None] * speed, room)).sum(1)
        rate = (weight * speed * moving).sum(1)
        short = (level - gained).clamp_min(0)
        t = torch.where(short > 0, t + short / rate, t)
    return torch.where(t[:, None].isinf(), room * (weight > 0), (t[:, None] * speed).minimum(room))
