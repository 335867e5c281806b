"""One training iteration of the published GAT (GAMA-GAT), line by line.

Written from the description of the published arithmetic, ours; no code copied. As `nuat.py` beside
it: slow on purpose, knows torch alone, and the noise is an argument, +-1 in the shape of the
images.
"""

import torch
import torch.nn.functional as F

EPS = 8 / 255
BERNOULLI = 4 / 255


def lam_cifar10(epoch):
    """10, and four times as much after epoch 85 has ended, epochs counted from 0."""
    return 10.0 if epoch <= 85 else 40.0


def lam_mnist(epoch):
    """15, and three times as much after epoch 25: of the drops at 12.5, 25 and 37.5 one happens."""
    return 15.0 if epoch <= 25 else 45.0


def lam_imagenet100(epoch):
    """20, and seven times as much from epoch 90."""
    return 20.0 if epoch < 90 else 140.0


def regularizer(p, q):
    """The squared distance of the probabilities, summed over classes, averaged over the batch."""
    return ((p - q) ** 2).sum(1).mean(0)


def gat_iteration(model, optimizer, x, y, signs, lam, batch, kind="cifar10"):
    """`batch` is the index of the batch in its epoch. Returns (x_adv, loss).

    `kind`: "mnist" begins at +-0.3, steps and stays within 0.3 and has the guiding term in each
    batch; "imagenet100" takes the attack's clean probabilities in eval mode.
    """
    eps, bernoulli = (0.3, 0.3) if kind == "mnist" else (EPS, BERNOULLI)
    a = 1 if kind == "mnist" else batch % 2

    # the clean probabilities: in train mode, with their graph, and with a first BatchNorm update
    model.train()
    if kind == "imagenet100":
        model.eval()
    p = torch.softmax(model(x), dim=1)

    # one attack step in eval mode, the guiding term in odd batches only
    model.eval()
    x_adv = torch.clamp(x + bernoulli * signs, 0, 1).detach().requires_grad_(True)
    logits = model(x_adv)
    q = torch.softmax(logits, dim=1)
    attack_loss = F.cross_entropy(logits, y) + a * lam * regularizer(p, q)
    attack_loss.backward()
    x_adv = torch.clamp(x_adv.detach() + eps * torch.sign(x_adv.grad), 0, 1)
    delta = torch.clamp(x_adv - x, -eps, eps)
    x_adv = torch.clamp(x + delta, 0, 1)

    # the loss in train mode, first the adversarial images, then the clean ones once more
    model.train()
    optimizer.zero_grad()
    adversarial = model(x_adv)
    clean = model(x)
    q = torch.softmax(adversarial, dim=1)
    p = torch.softmax(clean, dim=1)
    loss = F.cross_entropy(clean, y) + lam * regularizer(p, q)
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()
