"""How far the probabilities move where GAMA-40 fools the networks of classes.py with 100 classes.

    OMP_NUM_THREADS=1 python benchmarks/classes_probabilities.py OUT

OUT is that of classes.py. On the first 200 test pairs: the mean probability of the true class, and
the mean |p(x') - p(x)|^2 of the images that are fooled.
"""

import sys
from pathlib import Path

import torch
from classes import digit_pairs

import nuat
from nuat.attacks import parse_attack

RUNS = {
    "100-gat-wa-x-1-0": 0.15,
    "100-gat-wa-x-3.16-0": 0.15,
    "100-gat-wa-x-0.316-eps-0.25-0": 0.25,
    "100-gat-wa-x-1-eps-0.25-0": 0.25,
    "100-gat-wa-x-3.16-eps-0.25-0": 0.25,
    "100-nuat-wa-rule-0": 0.15,
}


def main() -> None:
    x, y = digit_pairs(100).test.batch(torch.arange(200))
    print(f"{'run':34}{'p_y':>6}{'fooled':>8}{'|dp|^2':>8}")
    for name, eps in RUNS.items():
        model = nuat.load_model(Path(sys.argv[1]) / name / "last.safetensors").model.eval()
        x_adv = parse_attack("gama-40", nuat.Linf(eps))(model, x, y)
        with torch.no_grad():
            p, p_adv = model(x).softmax(1), model(x_adv).softmax(1)
        fooled = p_adv.argmax(1) != y
        distance = (p_adv - p).square().sum(1)[fooled].mean()
        p_y = p.gather(1, y[:, None]).mean()
        print(f"{name:34}{p_y:6.2f}{fooled.float().mean():8.1%}{distance:8.3f}")


if __name__ == "__main__":
    main()
