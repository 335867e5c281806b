"""One training iteration of FGSM-PGI with the prior of the previous batch, line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. The label smoothing of the published code is left out.
"""

import torch
import torch.nn.functional as F


def pgi_iteration(model, optimizer, x, y, prior, eps=8 / 255, alpha=8 / 255, lam=10):
    """Returns (x_adv, loss). `prior` [B', ...], B' >= B, is changed to the new perturbation."""
    model.train()
    delta = torch.clamp(prior[: len(x)], -x, 1 - x).detach().requires_grad_(True)
    before = model(x + delta)
    F.cross_entropy(before, y).backward(retain_graph=True)

    new = torch.clamp(delta.detach() + alpha * torch.sign(delta.grad), -eps, eps)
    new = torch.clamp(new, -x, 1 - x)
    prior[: len(x)] = new

    after = model(x + new)
    loss = F.cross_entropy(after, y) + lam * F.mse_loss(after, before)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return x + new, loss.detach()
