"""The published free adversarial training (ATF, Free-m), a batch and its m replays, line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. There is no noise: the perturbation begins as zeros and is never begun again.
"""

import torch
import torch.nn.functional as F

EPS = 8 / 255


def begin(batch_size, shape, dtype):
    """The one perturbation: a tensor in the shape of a full batch, made once per training."""
    return torch.zeros(batch_size, *shape, dtype=dtype)


def free_batch(model, optimizer, x, y, perturbation, m, through_the_clip=True):
    """m replays of one batch; moves `perturbation` in place. Returns [(x_adv, loss), ...].

    `through_the_clip`, as published: the gradient is that of the perturbation, so it is 0 where the
    box cuts an image off; without, it is that of the image after the cut.
    """
    n = len(x)
    found = []
    model.train()
    for _ in range(m):
        delta = perturbation[:n].clone().requires_grad_(True)
        x_adv = torch.clamp(x + delta, 0, 1)
        x_adv.retain_grad()
        loss = F.cross_entropy(model(x_adv), y)

        # one backward pass gives both gradients
        optimizer.zero_grad()
        loss.backward()
        gradient = delta.grad if through_the_clip else x_adv.grad

        # the perturbation moves with the gradient at the old weights, then the weights move
        perturbation[:n] += EPS * torch.sign(gradient)
        perturbation.clamp_(-EPS, EPS)
        optimizer.step()
        found.append((x_adv.detach(), loss.detach()))
    return found
