"""APGD (arXiv:2003.01690, Algorithm 1) for one image, step by step, with the quirks of the tables.

Written from the description of the published algorithm and of what its program does, ours; no code
copied. It knows torch alone. The noise of the start is an argument. Four things the program does
which the algorithm does not say, all kept, because published verdicts depend on them:

* the first window compares the loss after the first step with the last row of the table of losses,
  which is still zero; the loss at the start is not in that table;
* "the step was halved at the last checkpoint" is true before the first one, so that the second
  condition cannot hold there;
* a return to the best point takes the gradient kept from there instead of a new one;
* such a return leaves the previous point of the momentum as it was.
"""

import torch
import torch.nn.functional as F

MOMENTUM = 0.75
RHO = 0.75
TINY = 1e-12


def checkpoints(steps):
    """After which steps the step size may be halved: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    gap = max(int(0.22 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    floor = max(int(0.06 * steps), 1)
    found = []
    at = gap
    while at <= steps:
        found.append(at)
        gap = max(gap - shrink, floor)
        at += gap
    return found


def cross_entropy(z, y):
    return F.cross_entropy(z[None], torch.tensor([y]))


def dlr(z, y):
    """-(z_y - max of the others) / (z_(1) - z_(3)), the logits numbered from the largest down."""
    top = z.sort(descending=True)
    other = top.values[1] if top.indices[0] == y else top.values[0]
    return -(z[y] - other) / (top.values[0] - top.values[2] + TINY)


def targeted_dlr(z, y, target):
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)."""
    top = z.sort(descending=True).values
    return -(z[y] - z[target]) / (top[0] - (top[2] + top[3]) / 2 + TINY)


def targeted_margin(z, y, target):
    """z_t - z_y, which the minimum-margin attack (arXiv:2206.07314) raises."""
    return z[target] - z[y]


def loss_and_gradient(f, x, y, loss, target):
    x = x.detach().clone().requires_grad_(True)
    z = f(x[None])[0]
    if loss == "ce":
        value = cross_entropy(z, y)
    elif loss == "dlr":
        value = dlr(z, y)
    elif loss == "targeted":
        value = targeted_dlr(z, y, target)
    elif loss == "margin":
        value = targeted_margin(z, y, target)
    else:
        raise ValueError(loss)
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient


def length(v):
    return (v**2).sum().sqrt()


def unit(v):
    return v / (length(v) + TINY)


def start(x, eps, norm, noise):
    """A point of the surface of the ball, cut off at the box."""
    noise = noise / (noise.abs().max() + TINY) if norm == "linf" else unit(noise)
    return (x + eps * noise).clamp(0, 1)


def project(x_adv, x, eps, norm):
    """Into the ball around x, then into the box."""
    if norm == "linf":
        return torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
    delta = x_adv - x
    return (x + unit(delta) * length(delta).clamp(max=eps)).clamp(0, 1)


def advance(x_adv, x_prev, x, gradient, step, momentum, eps, norm):
    """One step along the gradient, then the momentum, each followed by the projection."""
    direction = gradient.sign() if norm == "linf" else unit(gradient)
    z = project(x_adv + step * direction, x, eps, norm)
    return project(x_adv + momentum * (z - x_adv) + (1 - momentum) * (x_adv - x_prev), x, eps, norm)


def rises_too_seldom(table, last, gap):
    """Condition 1: at most rho * gap rises in the window of `gap` rows that ends with row `last`.

    At the first checkpoint `row - 1` is -1 for row 0: the last row of the table, which is still 0.
    """
    rises = 0
    for row in range(last - gap + 1, last + 1):
        if table[row] > table[row - 1]:
            rises += 1
    return rises <= RHO * gap


def apgd(f, x, y, eps, norm, loss, start_noise, steps=100, target=None):
    """The points x_0 .. x_steps at which the gradient was taken, and the losses there.

    `x` is one image [C, H, W] in [0, 1], `norm` linf or l2, `loss` ce, dlr, or targeted or margin
    (with `target`). `start_noise` is uniform in [-1, 1] for linf and normal for l2.
    """
    x_adv = start(x, eps, norm, start_noise)
    value, gradient = loss_and_gradient(f, x_adv, y, loss, target)
    points, losses = [x_adv], [value]
    best, best_value, best_gradient = x_adv, value, gradient

    step = 2 * eps
    x_prev = x_adv
    table = [0.0] * steps
    checks, last_check = checkpoints(steps), 0
    value_at_last_check, halved_at_last_check = best_value, True

    for k in range(steps):
        momentum = 1.0 if k == 0 else MOMENTUM
        moved = advance(x_adv, x_prev, x, gradient, step, momentum, eps, norm)
        x_prev, x_adv = x_adv, moved
        value, gradient = loss_and_gradient(f, x_adv, y, loss, target)
        points.append(x_adv)
        losses.append(value)
        table[k] = value
        if value > best_value:
            best, best_value, best_gradient = x_adv, value, gradient

        if k + 1 in checks:
            seldom = rises_too_seldom(table, k, k + 1 - last_check)
            stuck = not halved_at_last_check and value_at_last_check >= best_value
            halve = seldom or stuck
            if halve:
                step = step / 2
                x_adv, gradient = best, best_gradient
            last_check, value_at_last_check, halved_at_last_check = k + 1, best_value, halve
    return points, losses
