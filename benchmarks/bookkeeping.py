"""How the cost of an evaluation's bookkeeping grows: CPU seconds and memory by number of images.

    python benchmarks/bookkeeping.py > benchmarks/bookkeeping.log

The network has two pixels and three classes, so that the log, the verdicts, the scores and the
report are what is measured. Each size runs in its own process.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = 1_000, 10_000
ATTACKS = ["pgd-1(restarts=5)", "custom(parts=('apgd-ce-2','square-5'))"]
BATCH_SIZE = 16


def measure(images: int) -> None:
    import torch

    import nuat
    from nuat.report import open_item, write_page

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3)).eval()
    x = torch.rand(images, 1, 1, 2)
    data = x, model(x).argmax(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        out, times = Path(folder) / "out", []
        for _ in ("evaluate", "resume"):
            begun = time.process_time()
            more = {"batch_size": BATCH_SIZE, "save_adversarial": True}
            result = nuat.evaluate(model, data, nuat.Linf(0.05), ATTACKS, out=out, **more)
            times.append(time.process_time() - begun)
        assert 0.2 < result.worst_case_accuracy < 1
        begun = time.process_time()
        write_page([open_item(out)], Path(folder) / "page.html")
        times.append(time.process_time() - begun)
        lines = (out / "log-0.jsonl").read_bytes().count(b"\n")
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(*(f"{value:.2f}" for value in (*times, memory)), lines)


def main() -> None:
    names = "evaluate, s", "resume, s", "report, s", "memory, MiB", "lines of the log"
    figures = []
    for images in SIZES:
        command = [sys.executable, __file__, str(images)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures.append([float(text) for text in done.stdout.split()])
    print(f"{'':18}{SIZES[0]:>10,}{SIZES[1]:>10,}    growth")
    for name, few, many in zip(names, *figures, strict=True):
        print(f"{name:18}{few:10.2f}{many:10.2f}{many / few:10.1f}")


if __name__ == "__main__":
    measure(int(sys.argv[1])) if sys.argv[1:] else main()
