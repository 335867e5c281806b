"""Threat models, and the points of them at which attacks start.

Only the ball holds eps. Step sizes and starts are in units of eps, so that they follow a change of
eps: at eps 8/255 a relative step size of 1/4 is the usual 2/255.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor

from nuat.config.parsing import parse_value
from nuat.config.registry import Registry
from nuat.errors import InputError, check_fraction
from nuat.numbers import plain, plain_fields
from nuat.rng import Noise

SLACK = 1e-6
"""How far beyond eps a point still counts as inside of a ball, because of rounding."""


@dataclass(frozen=True, repr=False)
class Ball:
    """The images within eps of an image x and in [0, 1]; eps is in pixel units of [0, 1]."""

    eps: float

    dual_order: ClassVar[int] = 2
    """The order of the dual norm, in which linearized distances divide by gradients."""

    def __post_init__(self) -> None:
        plain_fields(self)
        number = isinstance(self.eps, int | float) and not isinstance(self.eps, bool)
        if not number or not 0 <= self.eps < math.inf:
            raise InputError(f"eps is {self.eps!r}, but must be a number from 0 up, such as 8/255")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Project `x_adv` onto the ball around `x` and [0, 1]."""
        raise NotImplementedError

    def project_delta(self, delta: Tensor) -> Tensor:
        """Project perturbations onto the ball around 0, without regard to [0, 1]."""
        raise NotImplementedError

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """The v that maximizes <gradient, v> over |v| <= 1, for each image."""
        raise NotImplementedError

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """A uniformly random point of the ball around `x`, not clamped to [0, 1]."""
        raise NotImplementedError

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The distance of each `x_adv` from its `x`, [B]."""
        raise NotImplementedError

    def contains(self, x_adv: Tensor, x: Tensor, slack: float = SLACK) -> Tensor:
        """Whether each image is finite, in [0, 1] and within eps + slack of `x`, [B] bool."""
        in_box = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        return in_box & (self.distance(x_adv, x) <= self.eps + slack)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({format_pixels(self.eps)})"


def format_pixels(value: float) -> str:
    """A distance in pixel units as text, exactly: `8/255` where that is shorter, else `0.031`."""
    in_255ths = f"{value * 255:g}"
    short = len(in_255ths) + 4 < len(repr(value)) and float(in_255ths) / 255 == value
    return f"{in_255ths}/255" if short else repr(value)


@dataclass(frozen=True, repr=False)
class Linf(Ball):
    """max_i |x_adv_i - x_i| <= eps.

    >>> ball = nuat.Linf(8 / 255)
    >>> ball
    Linf(8/255)
    >>> x = torch.zeros(1, 1, 2, 2)
    >>> ball.project(torch.ones_like(x), x).max() == 8 / 255
    tensor(True)
    """

    dual_order = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise InputError(
                f"eps is {self.eps:g}, but pixels lie in [0, 1]; did you mean {self.eps:g}/255?"
            )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """clamp(x + clamp(clamp(x_adv, 0, 1) - x, -eps, eps), 0, 1), in this order as published."""
        return (x + self.project_delta(x_adv.clamp(0, 1) - x)).clamp(0, 1)

    def project_delta(self, delta: Tensor) -> Tensor:
        """clamp(delta, -eps, eps)."""
        return delta.clamp(-self.eps, self.eps)

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """sign(gradient)."""
        return gradient.sign()

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """x + U(-eps, eps)."""
        return x + self.eps * (2 * noise.uniform(x) - 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """max_i |x_adv_i - x_i|, [B]."""
        return (x_adv - x).flatten(1).abs().amax(1)


@dataclass(frozen=True, repr=False)
class L2(Ball):
    """sqrt(sum_i (x_adv_i - x_i)^2) <= eps.

    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> float(nuat.L2(0.5).distance(x + 0.1, x))
    0.2...
    """

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """clamp(x + d * min(1, eps / |d|), 0, 1), d = x_adv - x.

        The result is in the ball and in [0, 1], but it is not always the nearest such point.
        """
        return (x + self.project_delta(x_adv - x)).clamp(0, 1)

    def project_delta(self, delta: Tensor) -> Tensor:
        """delta * min(1, eps / |delta|), with eps reduced by the rounding error of x + delta."""
        ulp = torch.finfo(delta.dtype).eps
        max_norm = max(0.0, self.eps * (1 - ulp) - ulp / 4 * delta[0].numel() ** 0.5)
        factor: Tensor = (max_norm / _norm(delta).clamp_min(1e-12)).clamp_max(1)
        return delta * factor

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """gradient / |gradient|; 0 where the gradient is 0."""
        # divide by the largest entry first: squares of tiny gradients would underflow
        scaled = gradient / _per_image(gradient.flatten(1).abs().amax(1), gradient).clamp_min(1e-30)
        return scaled / _norm(scaled).clamp_min(1e-12)

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """x + eps * u^(1/n) * g / |g|, g ~ N(0, 1), u ~ U[0, 1): uniform in the ball."""
        direction = self.steepest_direction(noise.normal(x))
        radius = noise.uniform(x.flatten(1)[:, 0:1])[:, 0] ** (1 / x[0].numel())
        return x + self.eps * _per_image(radius, x) * direction

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """|x_adv - x|_2, [B]."""
        return _l2_norms(x_adv - x)


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _norm(x: Tensor) -> Tensor:
    return _per_image(_l2_norms(x).to(x.dtype), x)


def _l2_norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1).double(), dim=1)
    return norms


norms: Registry[type[Ball]] = Registry("norm")
norms.add("linf", Linf)
norms.add("l2", L2)


def parse_eps(eps: float | str) -> float:
    """Parse `0.03`, `"0.03"` or `"8/255"` as a number. Raises InputError for anything else."""
    wrong = InputError(f"eps is {eps!r}, but must be a number such as 8/255 or 0.03")
    try:
        value = parse_value(eps) if isinstance(eps, str) else plain(eps)
    except InputError:
        raise wrong from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    try:
        return float(value)
    except OverflowError:
        raise InputError("eps has too many digits, but must be a number such as 8/255") from None


def parse_ball(text: str) -> Ball:
    """Parse a ball from its repr, such as `Linf(8/255)`. Raises InputError for anything else."""
    ball = parse_value(text, {kind.__name__: kind for kind in norms.values()})
    check_ball(ball)
    assert isinstance(ball, Ball)
    return ball


def check_ball(ball: object) -> None:
    """Raise InputError unless it is a Ball."""
    if not isinstance(ball, Ball):
        number = isinstance(ball, int | float | str)
        guess = f"; did you mean ball={_ball_of_radius(ball)}?" if number else ""
        raise InputError(
            f"the threat model is {ball!r}, but must be a ball such as Linf(8 / 255){guess}"
        )


EPS_NAMES = ("eps", "epsilon")
"""Names by which other libraries take the radius; here it belongs to the ball."""


def refuse_eps(owner: type, settings: Mapping[str, object]) -> None:
    """Raise InputError if `eps` is among the arguments of a class that has no such parameter."""
    for name in EPS_NAMES:
        if name not in settings:
            continue
        parameters = signature(owner.__init__).parameters  # type: ignore[misc]  # of a class
        if name not in parameters:
            raise InputError(
                f"{owner.__name__} has no parameter {name}: the radius belongs to the threat "
                f"model, ball={_ball_of_radius(settings[name])}"
            )


def _ball_of_radius(eps: object) -> str:
    """The ball that somebody who passes a radius probably means; 8 means 8/255."""
    try:
        radius = parse_eps(eps)  # type: ignore[arg-type]  # it refuses what is no number
        return repr(Linf(radius / 255 if radius > 1 else radius))
    except InputError:
        return "Linf(8/255)"


class Start:
    """The initial point of an attack: `start(x, ball, noise) -> x_adv`."""

    def __post_init__(self) -> None:
        if is_dataclass(self):
            plain_fields(self)

    def __call__(self, x: Tensor, ball: Ball, noise: Noise) -> Tensor:
        """The initial point, in [0, 1] unless `clamp=False`."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoStart(Start):
    """Start at the clean image."""

    def __call__(self, x: Tensor, ball: Ball, noise: Noise) -> Tensor:
        return x


@dataclass(frozen=True)
class Uniform(Start):
    """Start at a uniformly random point of the ball: clamp(x + U(ball), 0, 1)."""

    def __call__(self, x: Tensor, ball: Ball, noise: Noise) -> Tensor:
        return ball.sample(x, noise).clamp(0, 1)


@dataclass(frozen=True)
class Bernoulli(Start):
    """Start at x + fraction * eps * s, where s is a random sign per pixel (normalized in L2).

    `clamp=False` does not clamp the point to [0, 1], as the published GAMA attack.
    """

    fraction: float = 1 / 2
    clamp: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("fraction", self.fraction)

    def __call__(self, x: Tensor, ball: Ball, noise: Noise) -> Tensor:
        start = x + self.fraction * ball.eps * ball.steepest_direction(noise.sign(x))
        return start.clamp(0, 1) if self.clamp else start


@dataclass(frozen=True)
class Gaussian(Start):
    """Start at x + std * N(0, 1), the noise projected onto the ball; std in pixel units of [0, 1].

    `clamp=False` does not clamp the point to [0, 1], as the published TRADES attack.
    """

    std: float = 0.001
    clamp: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("std", self.std)

    def __call__(self, x: Tensor, ball: Ball, noise: Noise) -> Tensor:
        start = x + ball.project_delta(self.std * noise.normal(x))
        return start.clamp(0, 1) if self.clamp else start
