"""A training method of your own, run by name.

nuat train half-half --import examples/own_method.py --data digits
"""

from dataclasses import dataclass, replace

from nuat import FGSM, Attack, Method, ce, get_recipe, register_recipe


@dataclass(frozen=True)
class HalfHalf(Method):
    """(CE(f(x), y) + CE(f(x'), y)) / 2  at  x' = inner(f, x, y)."""

    inner: Attack = FGSM()

    def step(self, f, x, y, t):
        """One loss: half on the clean images, half on those the attack found."""
        x_adv = self.inner(f, x, y, t.noise)
        yield (ce(f(x), y) + ce(f(x_adv), y)) / 2


fgsm_at = get_recipe("fgsm-at", "digits")
register_recipe(replace(fgsm_at, name="half-half", method=HalfHalf(FGSM(fgsm_at.ball))))
