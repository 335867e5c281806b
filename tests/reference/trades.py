"""One training iteration of the published TRADES, line by line.

Written from the description of the published arithmetic, ours; no code copied. Slow on purpose: the
clean logits of the attack are made anew in each step, with their graph. It knows torch alone. The
noise is an argument, N(0, 1) in the shape of the images.
"""

import torch
import torch.nn.functional as F

EPS = 0.031
STEP = 0.007
STEPS = 10
STD = 0.001
BETA = 6.0


def divergence(adversarial, clean):
    """KL(p(x) || p(x_adv)), summed over classes and images."""
    log_q = F.log_softmax(adversarial, dim=1)
    p = F.softmax(clean, dim=1)
    return F.kl_div(log_q, p, reduction="sum")


def attack(model, x, normal, eps=EPS, step=STEP, steps=STEPS, std=STD, boxed=False, mode="eval"):
    """Ten steps from a little Gaussian noise; published: not `boxed`, it may leave [0, 1]."""
    model.train(mode == "train")
    x_adv = x.detach() + std * normal
    if boxed:
        x_adv = torch.clamp(x_adv, 0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        loss = divergence(model(x_adv), model(x))
        (gradient,) = torch.autograd.grad(loss, [x_adv])
        x_adv = x_adv.detach() + step * torch.sign(gradient)
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
        x_adv = torch.clamp(x_adv, 0, 1)
    return x_adv.detach()


def trades_iteration(model, optimizer, x, y, normal, beta=BETA, merged=False, **attacked):
    """Returns (x_adv, loss). Published: clean, adversarial and clean images once more.

    `merged`: the last pass serves both terms and there is no first, so that the running statistics
    count the clean images once.
    """
    x_adv = attack(model, x, normal, **attacked)

    model.train()
    optimizer.zero_grad()
    logits = None if merged else model(x)
    adversarial = model(x_adv)
    again = model(x)
    natural = F.cross_entropy(again if merged else logits, y)
    robust = divergence(adversarial, again) / len(x)
    loss = natural + beta * robust
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()
