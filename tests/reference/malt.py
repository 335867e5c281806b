"""The order of target classes of MALT (arXiv:2407.02240) for one image.

Written from a description of the method, ours; no code copied. Near an image the network is taken
for a linear one, in which the boundary between class y and class j is |z_y - z_j| / |w_j - w_y|
away, in the norm of the ball if |w_j - w_y| is measured in its dual norm. The nearest class is
attacked first.
"""

import torch


def distance_of_class(f, x, y, j, norm):
    """How far the boundary of class j is from the image x [C, H, W], in the linear network."""
    x = x.detach().clone().requires_grad_(True)
    z = f(x[None])[0]
    (wj,) = torch.autograd.grad(z[j], x, retain_graph=True)
    (wy,) = torch.autograd.grad(z[y], x)
    w = wj - wy
    length = w.abs().sum() if norm == "linf" else (w**2).sum().sqrt()
    return float((z[y] - z[j]).detach() / length)


def order_of_targets(f, x, y, norm, candidates):
    """The classes other than y: the most likely `candidates` by distance, then the rest."""
    with torch.no_grad():
        z = f(x[None])[0]
    likely = [j for j in z.argsort(descending=True).tolist() if j != y]
    near = sorted(likely[:candidates], key=lambda j: distance_of_class(f, x, y, j, norm))
    return near + likely[candidates:]
