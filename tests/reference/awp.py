"""One training iteration of the published TRADES-AWP and AT-AWP, line by line.

Written from the description of the published arithmetic, ours; no code copied. Slow on purpose. It
knows torch and, for the attack of TRADES, its transcription. The noise is an argument: N(0, 1) for
TRADES-AWP, uniform in [-1, 1] for AT-AWP, in the shape of the images.
"""

import copy

import torch
import torch.nn.functional as F

from tests.reference.trades import attack as trades_attack
from tests.reference.trades import divergence

EPS = 8 / 255
STEP = 2 / 255
STEPS = 10
BETA = 6.0


def gamma_trades(epoch):
    """TRADES-AWP. The published epochs count from 1 and perturb from 10 on; `epoch` is from 0."""
    return 0.005 if epoch + 1 >= 10 else 0.0


def gamma_at(epoch):
    """AT-AWP has no warm-up."""
    return 0.01


def perturbation(model, proxy, objective, rate):
    """Each layer's own direction: the proxy takes one step uphill, rescaled to the norm of w."""
    proxy.load_state_dict(model.state_dict())
    proxy.train()
    ascent = torch.optim.SGD(proxy.parameters(), lr=rate)
    loss = -objective(proxy)
    ascent.zero_grad()
    loss.backward()
    ascent.step()
    moved = proxy.state_dict()
    v = {}
    for name, w in model.state_dict().items():
        if w.dim() <= 1 or "weight" not in name:
            continue
        difference = moved[name] - w
        v[name] = w.norm() / (difference.norm() + 1e-20) * difference
    return v


def add(model, v, coefficient):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in v:
                parameter.add_(coefficient * v[name])


def descend(model, optimizer, loss, v, gamma, decay):
    """Backward, optimizer step and restoring. Published: the `decay` of the weights is of w + v.

    With `decay` "w" the weights are restored between backward and optimizer step: the gradient is
    that at w + v, the decay that of w.
    """
    optimizer.zero_grad()
    loss.backward()
    if decay == "w":
        add(model, v, -gamma)
        optimizer.step()
    else:
        optimizer.step()
        add(model, v, -gamma)


def trades_awp_iteration(
    model,
    optimizer,
    x,
    y,
    normal,
    gamma,
    eps=EPS,
    step=STEP,
    beta=BETA,
    decay="w+v",
    merged=False,
    rate=0.1,
    **attacked,
):
    """Returns (x_adv, loss, gamma v). Gamma 0 leaves the weights where they are."""
    x_adv = trades_attack(model, x, normal, eps, step, STEPS, **attacked)

    model.train()
    v = {}
    if gamma > 0:

        def objective(proxy):
            clean = proxy(x)
            return F.cross_entropy(clean, y) + beta * divergence(proxy(x_adv), clean) / len(x)

        v = perturbation(model, copy.deepcopy(model), objective, rate)
        add(model, v, gamma)

    # adversarial, clean, clean
    adversarial = model(x_adv)
    clean = model(x)
    again = clean if merged else model(x)
    robust = divergence(adversarial, clean) / len(x)
    loss = F.cross_entropy(again, y) + beta * robust
    descend(model, optimizer, loss, v, gamma, decay)
    return x_adv, loss.detach(), {name: gamma * v[name] for name in v}


def pgd(model, x, y, uniform, eps, size):
    """In whatever mode the network is; ten steps, and one pass more to pick the best restart."""
    delta = eps * uniform
    delta = torch.clamp(delta, -x, 1 - x)
    for _ in range(STEPS):
        delta = delta.detach().requires_grad_(True)
        F.cross_entropy(model(x + delta), y).backward()
        step = delta.detach() + size * torch.sign(delta.grad)
        delta = torch.clamp(step, -eps, eps)
        delta = torch.clamp(delta, -x, 1 - x)
    with torch.no_grad():
        model(x + delta)
    return torch.clamp(x + delta, 0, 1)


def at_awp_iteration(
    model,
    optimizer,
    x,
    y,
    uniform,
    gamma,
    eps=EPS,
    step=STEP,
    decay="w+v",
    mode="train",
    counting=True,
    rate=0.01,
):
    """Returns (x_adv, loss, gamma v). Published: `mode` "eval" in the first batch after a test.

    Published: `counting`, the passes of a train-mode attack and a clean pass for the log move the
    running statistics too; without it only the training pass does.
    """
    model.train(mode == "train")
    statistics = [buffer.clone() for buffer in model.buffers()]
    x_adv = pgd(model, x, y, uniform, eps, step)
    if not counting:
        for buffer, before in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(before)

    model.train()
    v = {}
    if gamma > 0:

        def objective(proxy):
            return F.cross_entropy(proxy(x_adv), y)

        v = perturbation(model, copy.deepcopy(model), objective, rate)
        add(model, v, gamma)

    loss = F.cross_entropy(model(x_adv), y)
    descend(model, optimizer, loss, v, gamma, decay)
    if counting:
        with torch.no_grad():
            model(x)
    return x_adv, loss.detach(), {name: gamma * v[name] for name in v}
