"""One training iteration of N-FGSM, line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. The noise is an argument, uniform in [-1, 1] in the shape of the images.
"""

import torch
import torch.nn.functional as F


def nfgsm_iteration(model, optimizer, x, y, uniform, eps=8 / 255, k=2, alpha=1, counting=True):
    """Returns (x_adv, loss). Published: `counting`, the attack's pass moves the statistics."""
    model.train()
    statistics = [buffer.clone() for buffer in model.buffers()]

    # noise twice as wide as the ball
    eta = torch.clamp(k * eps * uniform, -x, 1 - x).detach().requires_grad_(True)
    F.cross_entropy(model(x + eta), y).backward()

    # one step of eps, which nothing projects onto the ball
    delta = eta.detach() + alpha * eps * torch.sign(eta.grad)
    delta = torch.clamp(delta, -x, 1 - x)

    if not counting:
        for buffer, before in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(before)

    loss = F.cross_entropy(model(x + delta), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return x + delta, loss.detach()
