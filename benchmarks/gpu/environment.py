"""What the machine has: every package that nuat needs, the GPU, the processors."""

import importlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

NEEDED = {name: name for name in ("torch", "numpy", "safetensors", "typer", "rich", "matplotlib")}
NEEDED |= {"jinja2": "jinja2", "PIL": "pillow"}
OPTIONAL = {"triton": "triton", "sklearn": "scikit-learn"}


def installed(module: str, package: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"MISSING ({type(error).__name__}: {error})"
    try:
        return version(package)
    except PackageNotFoundError:
        return "there"


def main() -> None:
    print(f"python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} processors")
    found = {name: installed(name, package) for name, package in (NEEDED | OPTIONAL).items()}
    print(", ".join(f"{name} {text}" for name, text in found.items()), flush=True)
    query = "name,driver_version,memory.total,memory.used,clocks.sm,power.draw,temperature.gpu"
    try:
        words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=20)
        print((told.stdout or told.stderr).strip(), flush=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"nvidia-smi: {error}", flush=True)
    missing = [name for name in NEEDED if found[name].startswith("MISSING")]
    if missing:
        sys.exit(f"error: nuat needs {', '.join(missing)}")
    import torch

    cudnn = torch.backends.cudnn.version()
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}")


if __name__ == "__main__":
    main()
