"""One training iteration of GradAlign with FGSM, line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. The noise is an argument, uniform in [-1, 1] in the shape of the images.
"""

import torch
import torch.nn.functional as F


def gradalign_iteration(model, optimizer, x, y, uniform, eps=8 / 255, lam=0.2, counting=True):
    """Returns (x_adv, loss). Published: `counting`, the attack's pass moves the statistics."""
    model.train()
    statistics = [buffer.clone() for buffer in model.buffers()]

    # FGSM; its gradient is a constant from here on
    delta = torch.zeros_like(x, requires_grad=True)
    grad1 = torch.autograd.grad(F.cross_entropy(model(x + delta), y), delta)[0].detach()
    delta = torch.clamp(eps * torch.sign(grad1), -eps, eps)
    delta = torch.clamp(x + delta, 0, 1) - x

    if not counting:
        for buffer, before in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(before)

    # the gradient at a random point
    eta = (eps * uniform).requires_grad_(True)
    random_loss = F.cross_entropy(model(x + eta), y)
    grad2 = torch.autograd.grad(random_loss, eta, create_graph=True)[0]

    # the mean cosine over the images of which neither gradient is 0
    cosines = []
    for one, two in zip(grad1, grad2, strict=True):
        if one.norm() != 0 and two.norm() != 0:
            cosines.append((one * two).sum() / (one.norm() * two.norm()))
    loss = F.cross_entropy(model(x + delta), y) + lam * (1 - torch.stack(cosines).mean())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return x + delta, loss.detach()
