"""A training method of your own, run by name.

    nuat train half-half --use examples/own_method.py --data digits
"""

from dataclasses import dataclass, replace

from nuat import FGSM, Attack, Linf, Method, ce, recipe, register


@dataclass(frozen=True)
class HalfHalf(Method):
    """(CE(f(x), y) + CE(f(x'), y)) / 2  at  x' = inner(f, x, y)."""

    inner: Attack = FGSM(Linf(0.2))

    def step(self, f, x, y, t):
        """One loss: half on the clean images, half on those the attack found."""
        x_adv = self.inner(f, x, y, t.noise)
        yield (ce(f(x), y) + ce(f(x_adv), y)) / 2


register(replace(recipe("fgsm-at", "digits"), name="half-half", method=HalfHalf()))
