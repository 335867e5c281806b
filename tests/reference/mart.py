"""One training iteration of MART, line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. The noise is an argument, N(0, 1) in the shape of the images.
"""

import torch
import torch.nn.functional as F


def mart_iteration(
    model, optimizer, x, y, normal, eps=0.031, step=0.007, std=0.001, steps=10, beta=5
):
    """Returns (x_adv, loss)."""
    model.eval()
    x_adv = x + std * normal
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        grad = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
        x_adv = x_adv.detach() + step * torch.sign(grad)
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)

    model.train()
    clean, adversarial = model(x), model(x_adv)
    p, q = F.softmax(clean, dim=1), F.softmax(adversarial, dim=1)

    # the most likely wrong class under attack
    order = torch.argsort(q, dim=1)
    wrong = torch.where(order[:, -1] == y, order[:, -2], order[:, -1])
    boosted = F.cross_entropy(adversarial, y) + F.nll_loss(torch.log(1.0001 - q + 1e-12), wrong)

    # the divergence, more of it where the clean prediction is unsure
    divergence = F.kl_div(torch.log(q + 1e-12), p, reduction="none").sum(dim=1)
    unsure = 1.0000001 - p[torch.arange(len(y)), y]
    loss = boosted + beta * (divergence * unsure).sum() / len(x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()
