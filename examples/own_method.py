"""A training method of your own, run by its name.

nuat train half-half --import examples/own_method.py --data digits
"""

from dataclasses import dataclass, replace

from nuat import FGSM, Attack, Method, ce, get_recipe, register_recipe


@dataclass(frozen=True)
class HalfHalf(Method):
    """Minimizes  (CE(f(x), y) + CE(f(x'), y)) / 2  at  x' = inner(f, x, y)."""

    inner: Attack = FGSM()

    def step(self, model, x, y, ctx):
        """Yield one loss: half of it on clean images, half on adversarial images."""
        x_adv = self.inner(model, x, y, ctx.noise)
        yield (ce(model(x), y) + ce(model(x_adv), y)) / 2


fgsm_at = get_recipe("fgsm-at", "digits")
register_recipe(replace(fgsm_at, name="half-half", method=HalfHalf(FGSM(fgsm_at.ball))))
