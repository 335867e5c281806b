"""One training iteration of the published FBF (Fast is better than free), line by line.

Written from the description of the published arithmetic, ours; no code copied. It knows torch
alone. The noise is an argument, uniform in [-1, 1] in the shape of the images. Pixels are in
[0, 1]: the published script normalises first and scales eps, alpha and the box by the same numbers,
all but the upper end of the noise, which is the first channel's in every channel.
"""

import torch
import torch.nn.functional as F

EPS = 8 / 255
ALPHA = 10 / 255


def fbf_iteration(
    model, optimizer, x, y, uniform, eps=EPS, alpha=ALPHA, counting=True, mode="train"
):
    """Returns (x_adv, loss). Published: `counting`, the attack's pass moves the running statistics.

    Without it they are put back after the attack.
    """
    model.train(mode == "train")
    statistics = [buffer.clone() for buffer in model.buffers()]

    # somewhere in the ball and in the box
    delta = eps * uniform
    delta = torch.clamp(delta, -x, 1 - x).detach().requires_grad_(True)

    # one step of 1.25 eps; its gradients land in the parameters too and are zeroed later
    F.cross_entropy(model(x + delta), y).backward()
    step = delta.detach() + alpha * torch.sign(delta.grad)
    delta = torch.clamp(step, -eps, eps)
    delta = torch.clamp(delta, -x, 1 - x)

    if not counting:
        for buffer, before in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(before)

    # cross-entropy on the adversarial images
    model.train()
    x_adv = x + delta
    loss = F.cross_entropy(model(x_adv), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()
