"""FAB (arXiv:1907.02044, Algorithm 1) for one image, started at the image itself.

Written from the description of the published algorithm and of what its program does, ours; no code
copied. It knows torch alone. The two projections are solved by halving an interval in float64 until
no number is left in it, and only their result is rounded to the type of the image.
"""

import torch

TINY = 1e-12
SHORTEST = 1e-8
"""Below it the program takes a displacement to be this long, when it weighs one with the other."""


def project_linf(x, w, b):
    """The displacement from x to the nearest point of {z in the box: <w, z> + b = 0} in l-infinity.

    There may be many nearest points. This one moves each coordinate by the same amount, or as far
    as the box allows; a coordinate of which w is 0 stays. If the plane does not meet the box, the
    displacement leads to the corner which comes nearest to it.
    """
    return displacement(x, w, b, torch.ones_like(w, dtype=torch.float64))


def project_l2(x, w, b):
    """The same in l2: each coordinate moves in proportion to |w|, or as far as the box allows."""
    return displacement(x, w, b, w.double().abs())


def displacement(x, w, b, speed):
    """All coordinates set out towards the plane, each at its speed, until they have reached it."""
    weight = w.double().abs()
    height = (w.double() * x.double()).sum().item() + float(b)
    towards = -w.double().sign() if height > 0 else w.double().sign()
    room = torch.where(towards > 0, 1 - x.double(), x.double())

    def moved(t):
        return torch.minimum(speed * t, room)

    def gained(t):
        return (weight * moved(t)).sum().item()

    needed = abs(height)
    if (weight * room).sum().item() <= needed:
        return (towards * room).to(x.dtype)
    low, high = 0.0, 1.0
    while gained(high) < needed:
        high = 2 * high
    while low < (middle := (low + high) / 2) < high:
        if gained(middle) < needed:
            low = middle
        else:
            high = middle
    return (towards * moved(high)).to(x.dtype)


PROJECTION = {"linf": project_linf, "l2": project_l2}


def size(v, norm):
    return v.abs().max().item() if norm == "linf" else (v**2).sum().sqrt().item()


def dual_size(v, norm):
    return v.abs().sum().item() if norm == "linf" else (v**2).sum().sqrt().item()


def label(f, x):
    with torch.no_grad():
        return f(x[None])[0].argmax().item()


def difference(f, x, y, target):
    """z_target - z_y and its gradient: below 0 as long as y is ahead."""
    x = x.detach().clone().requires_grad_(True)
    z = f(x[None])[0]
    value = z[target] - z[y]
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient


def nearest_difference(f, x, y, norm):
    """The difference of that other class whose plane is nearest; the lowest class if two are."""
    classes = len(f(x[None])[0])
    nearest, found = None, None
    for other in range(classes):
        if other == y:
            continue
        value, gradient = difference(f, x, y, other)
        distance = abs(value) / (dual_size(gradient, norm) + TINY)
        if nearest is None or distance < nearest:
            nearest, found = distance, (value, gradient)
    return found


def advance(x1, x, value, gradient, norm, alpha_max, eta):
    """Project both the point and the image on the plane, overshoot, and mix the two."""
    b = value - (gradient.double() * x1.double()).sum().item()
    d1 = PROJECTION[norm](x1, gradient, b)
    d2 = PROJECTION[norm](x, gradient, b)
    a1 = max(size(d1, norm), SHORTEST)
    a2 = max(size(d2, norm), SHORTEST)
    alpha = min(a1 / (a1 + a2), alpha_max)
    return ((x1 + eta * d1) * (1 - alpha) + (x + eta * d2) * alpha).clamp(0, 1)


def run(f, x, y, norm, linearise, steps, alpha_max, eta, beta):
    x1, iterates = x, []
    best, best_distance = None, float("inf")
    for _ in range(steps):
        value, gradient = linearise(x1)
        x1 = advance(x1, x, value, gradient, norm, alpha_max, eta)
        if label(f, x1) != y:
            distance = size(x1 - x, norm)
            if distance < best_distance:
                best, best_distance = x1, distance
            x1 = x + beta * (x1 - x)
        iterates.append(x1)
    return iterates, best, best_distance


def fab(f, x, y, eps, norm, target, steps=100, alpha_max=0.1, eta=1.05, beta=0.9):
    """FAB-T: (iterates, best point or None, its distance or inf), for the plane of y and `target`.

    `x` is one image [C, H, W] in [0, 1], rightly classified as `y`. An iterate is the point at the
    end of an iteration, after the step back. Any wrong class counts, not `target` alone. `eps` has
    no part in it: the attack looks for the nearest point, and the caller compares.
    """

    def linearise(x1):
        return difference(f, x1, y, target)

    return run(f, x, y, norm, linearise, steps, alpha_max, eta, beta)


def fab_untargeted(f, x, y, eps, norm, steps=100, alpha_max=0.1, eta=1.05, beta=0.9):
    """FAB: the same with the nearest of the K - 1 planes, chosen anew in each iteration."""

    def linearise(x1):
        return nearest_difference(f, x1, y, norm)

    return run(f, x, y, norm, linearise, steps, alpha_max, eta, beta)
