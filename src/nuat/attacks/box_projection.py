"""Projection onto a hyperplane within the box [0, 1]^n, in Linf and in L2, without sorting.

Both reduce to one scalar t per image. Orient w so that <w, x> + b > 0, and let r_i be how far the
box lets pixel i move against the sign of w_i. Moving each pixel by min(t s_i, r_i), with speed
s_i = 1 in Linf and |w_i| in L2, decreases <w, x> + b by sum_i |w_i| min(t s_i, r_i). This is
concave, increasing and piecewise linear in t, so Newton's method from t = 0 finds the root exactly
in a few steps. It needs no sorting and no shapes that depend on the data.

Not from the paper: the code published with AutoAttack sorts and bisects instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nuat.threat_models import Ball, Linf

NEWTON_STEPS = 25
"""More steps than float precision needs; at the root, a step changes nothing."""


def project_to_hyperplane(x: Tensor, w: Tensor, b: Tensor, ball: Ball) -> Tensor:
    """The smallest d with <w, x + d> + b = 0 and x + d in [0, 1].

    Args:
        x: points in [0, 1], [B, ...].
        w: normals, of the same shape.
        b: offsets [B].
        ball: its norm, Linf or L2, is the norm of d.

    Returns:
        d, of the shape of x. If the hyperplane does not meet the box, x + d is the corner of the
        box that is nearest to it.
    """
    flat, normal = x.flatten(1), w.flatten(1)
    level = (flat * normal).sum(1) + b
    normal = torch.where((level < 0)[:, None], -normal, normal)
    weight, room = normal.abs(), torch.where(normal > 0, flat, 1 - flat)
    speed = torch.ones_like(weight) if isinstance(ball, Linf) else weight
    move = _solve(weight, room, speed, level.abs())
    return (-normal.sign() * move).reshape(x.shape)


def _solve(weight: Tensor, room: Tensor, speed: Tensor, level: Tensor) -> Tensor:
    """min(t * speed, room) for the t that solves sum_i weight_i min(t speed_i, room_i) = level.

    On a concave function Newton's method from t = 0 never passes the root, and on the right linear
    piece it reaches the root in one step. If there is no root, t becomes infinite.
    """
    t, slope = torch.zeros_like(level), weight * speed
    for _ in range(NEWTON_STEPS):
        distance = t[:, None] * speed
        moving = distance < room
        decrease = (weight * torch.where(moving, distance, room)).sum(1)
        rate = (slope * moving).sum(1)
        remaining = (level - decrease).clamp_min(0)
        t, previous = torch.where(remaining > 0, t + remaining / rate, t), t
        # a step that changes no t is the last that changes anything; only a GPU would have to wait
        if t.is_cpu and torch.equal(t, previous):
            break
    return torch.where(t[:, None].isinf(), room * (weight > 0), (t[:, None] * speed).minimum(room))
