"""One training iteration of the published NuAT, NuAT2 and NuAT2-WA, line by line.

Written from the description of the published arithmetic, ours; no code copied. Slow on purpose:
what the published scripts compute and throw away is computed and thrown away here too. It knows
torch alone, nothing of nuat. The noise is an argument, a tensor of +-1 in the shape of the images,
so that other code can be given the same.
"""

import torch
import torch.nn.functional as F

EPS = 8 / 255
BERNOULLI = 4 / 255
BATCH = 64


def nuclear(d):
    """The nuclear norm, as torch has it."""
    return torch.linalg.matrix_norm(d, ord="nuc")


def ramp_nuat(epoch):
    """Lambda of NuAT on CIFAR-10, ResNet-18."""
    return 4.5 * min(epoch, 90) / 90


def ramp(epoch, epochs):
    """Lambda of NuAT-WA (100 epochs), NuAT2 (55) and NuAT2-WA (80) on CIFAR-10."""
    return 4 * epoch / epochs


def start(x, signs):
    """Four 255ths to one side or the other in each pixel."""
    x_adv = x + BERNOULLI * signs
    return torch.clamp(x_adv, 0, 1)


def advance(x_adv, x, gradient):
    """A step of all of eps, back into the box, back into the ball, back into the box."""
    x_adv = x_adv + EPS * torch.sign(gradient)
    x_adv = torch.clamp(x_adv, 0, 1)
    delta = torch.clamp(x_adv - x, -EPS, EPS)
    return torch.clamp(x + delta, 0, 1)


def nuat_iteration(model, optimizer, x, y, signs, lam, batch):
    """NuAT and NuAT-WA. `batch` is the index of the batch in its epoch. Returns (x_adv, loss)."""
    # the clean logits: in train mode, with their graph, and with a first BatchNorm update
    model.train()
    clean = model(x)

    # one attack step in eval mode; the nuclear term in odd batches only
    model.eval()
    x_adv = start(x, signs).detach().requires_grad_(True)
    logits = model(x_adv)
    attack_loss = F.cross_entropy(logits, y)
    if batch % 2 == 1:
        attack_loss = attack_loss + lam * (nuclear(clean - logits) / BATCH)
    attack_loss.backward()
    x_adv = advance(x_adv.detach(), x, x_adv.grad)

    # the loss in train mode, first the adversarial images, then the clean ones once more
    model.train()
    optimizer.zero_grad()
    adversarial = model(x_adv)
    clean = model(x)
    loss = F.cross_entropy(clean, y) + lam * (nuclear(clean - adversarial) / BATCH)
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()


def slides_iteration(model, optimizer, x, y, signs, weight):
    """NuAT by the formula of the talk, which has no divisor: weight = lambda / 64.

        x_adv = x + Bernoulli(+-eps / 2)
        x_adv = x_adv + eps sign(gradient of CE(f(x_adv), y) + weight |f(x_adv) - f(x)|_*)
        x_adv = the nearest point of the ball around x, and of [0, 1]
        loss = CE(f(x), y) + weight |f(x_adv) - f(x)|_*

    The start is not clamped, the nuclear term is in every batch, and the attack has one network: f
    in eval mode, for x and for x_adv. The two passes of the loss are in train mode; which is the
    first, the talk does not say. Returns (x_adv, loss).
    """
    model.eval()
    with torch.no_grad():
        clean = model(x)
    x_adv = (x + BERNOULLI * signs).requires_grad_(True)
    logits = model(x_adv)
    objective = F.cross_entropy(logits, y) + weight * nuclear(logits - clean)
    (gradient,) = torch.autograd.grad(objective, x_adv)
    x_adv = x_adv.detach() + EPS * torch.sign(gradient)
    x_adv = torch.clamp(x_adv, 0, 1)
    delta = torch.clamp(x_adv - x, -EPS, EPS)
    x_adv = torch.clamp(x + delta, 0, 1)

    model.train()
    optimizer.zero_grad()
    adversarial = model(x_adv)
    clean = model(x)
    loss = F.cross_entropy(clean, y) + weight * nuclear(adversarial - clean)
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()


def nuat2_iteration(model, optimizer, x, y, signs, lam, teacher=None):
    """NuAT2, or NuAT2-WA given the `teacher`: a network with the weights of the 0.99 average.

    In epoch 0 NuAT2-WA takes the live network as the teacher: `teacher` is then `model` itself.
    Returns (x_adv, loss).
    """
    first = model if teacher is None else teacher
    divisor = len(x) if teacher is None else BATCH

    # the clean logits in eval mode; those of the live network are not used if there is a teacher
    model.eval()
    first.eval()
    clean = model(x).detach()
    clean = first(x).detach()

    # step 0: cross-entropy and nuclear term, on the teacher if there is one. NuAT2 divides by the
    # true batch size; NuAT2-WA, in epoch 0 too, by the constant
    x_adv = start(x, signs).detach().requires_grad_(True)
    logits = first(x_adv)
    attack_loss = F.cross_entropy(logits, y) + lam * (nuclear(clean - logits) / divisor)
    attack_loss.backward()
    x_adv = advance(x_adv.detach(), x, x_adv.grad)

    # step 1: cross-entropy on the live network
    x_adv = x_adv.detach().requires_grad_(True)
    attack_loss = F.cross_entropy(model(x_adv), y)
    attack_loss.backward()
    x_adv = advance(x_adv.detach(), x, x_adv.grad)

    # the loss as in NuAT, with its constant divisor
    model.train()
    optimizer.zero_grad()
    adversarial = model(x_adv)
    clean = model(x)
    loss = F.cross_entropy(clean, y) + lam * (nuclear(clean - adversarial) / BATCH)
    loss.backward()
    optimizer.step()
    return x_adv, loss.detach()


def begin_average(model):
    """The average before training: the live tensors themselves, not copies of them.

    The first update therefore averages the weights after the first optimizer step with themselves.
    """
    return dict(model.state_dict())


def update_average(average, model, tau):
    """After each optimizer step: every entry of the state_dict, counters as floats too."""
    live = model.state_dict()
    for key in average:
        average[key] = tau * average[key] + (1 - tau) * live[key]
