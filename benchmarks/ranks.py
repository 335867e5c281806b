"""Training by torchrun: a rank that is killed and restarted, and two hosts.

    OMP_NUM_THREADS=1 python benchmarks/ranks.py > benchmarks/ranks.log

`restart` kills a rank with SIGKILL within an epoch, lets torchrun restart all ranks, and compares
the run with one that was not disturbed, bit for bit. `hosts` trains on two hosts, each of them a
network namespace with an address and a working directory of its own (on Linux, as root). `signals`
sends SIGUSR1 to torchrun, and resumes in one process.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import load_file

from nuat.checkpoints.run import Run

RANKS_OF_RESTART = (2, 4)
TRAIN = ["-m", "nuat.cli", "train"]
SMALL = ["--set", "model=small-cnn(width=8)"]
HOSTS = {"nuat-host-a": "10.77.0.1", "nuat-host-b": "10.77.0.2"}


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options]


def same_run(one: Path, other: Path) -> bool:
    """Whether two runs have equal weights, checkpoints and metrics, but for the time they took."""
    untimed = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in Run(folder).metrics]
        for folder in (one, other)
    ]
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other)]
    files = [(folder / "model.safetensors", folder / "last.safetensors") for folder in (one, other)]
    weights = [[load_file(file) for file in of_run] for of_run in files]
    return (
        untimed[0] == untimed[1]
        and all(equal(states[0][key], states[1][key]) for key in ("model", "emas", "memory"))
        and equal(*weights)
    )


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def process_of_rank(rank: int, folder: Path) -> int | None:
    """The process that trains as this rank into the folder."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and f"RANK={rank}".encode() in variables:
            return int(entry.name)
    return None


def restart(folder: Path, name: str, ranks: int, seed: int) -> None:
    options = ["--epochs", "6", *SMALL]
    launch = torchrun(
        "--nproc-per-node", str(ranks), "--max-restarts", "3", "--master-port", str(free_port())
    )
    whole, killed = folder / f"{name}-{ranks}-whole", folder / f"{name}-{ranks}-killed"
    subprocess.run(
        [*launch, *TRAIN, name, *options, "--out", str(whole)], check=True, capture_output=True
    )
    log = folder / "log"
    with log.open("w") as file:
        command = [*launch, *TRAIN, name, *options, "--out", str(killed)]
        job = subprocess.Popen(command, stdout=file, stderr=file)
    moments, deaths = random.Random(seed), []
    for epoch in (1, 3):
        begun = time.monotonic()
        while not (killed / "config.json").exists() or len(Run(killed).metrics) < epoch:
            assert job.poll() is None and time.monotonic() - begun < 120, log.read_text()
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        rank = moments.randrange(ranks)
        if (process := process_of_rank(rank, killed)) is not None:
            os.kill(process, signal.SIGKILL)
            deaths.append(f"rank {rank} after {len(Run(killed).metrics)} epochs")
        time.sleep(3)  # torchrun looks at its processes every now and then
    status = job.wait(timeout=120)
    resumed = [line for line in log.read_text().splitlines() if "resuming after" in line]
    print(f"{name} on {ranks} ranks: killed {', '.join(deaths)}; torchrun ended with {status}")
    for line in resumed:
        print(f"    {line.partition(': ')[2]}")
    print(f"    bit-equal to the undisturbed run: {same_run(whole, killed)}", flush=True)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def signals(folder: Path) -> None:
    out, log = folder / "signals", folder / "signals.log"
    passed_on = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    launch = torchrun(
        *("--nproc-per-node", "2", "--master-port", str(free_port()), "--shutdown-timeout", "60"),
        *("--signals-to-handle", passed_on),
    )
    options = ["nuat-wa", "--epochs", "12", *SMALL, "--out", str(out)]
    with log.open("w") as file:
        job = subprocess.Popen([*launch, *TRAIN, *options], stdout=file, stderr=file)
    while not (out / "config.json").exists() or not Run(out).metrics:
        assert job.poll() is None, log.read_text()
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    status = job.wait(timeout=120)
    print(f"SIGUSR1 to torchrun, which ended with {status}")
    resumed = subprocess.run(
        [sys.executable, *TRAIN, *options], check=True, capture_output=True, text=True
    )
    lines = [*log.read_text().splitlines(), *resumed.stdout.splitlines()]
    for line in lines:
        if any(words in line for words in ("stopped after", "ended by", "resuming", "so far on")):
            print(f"    {line.replace(str(out), 'run')}")
    print(f"    epochs in one process after that: {len(Run(out).metrics)} of 12", flush=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def connect_hosts(stack: ExitStack) -> None:
    """Two network namespaces with a cable between them, until the stack is closed."""
    for host in HOSTS:
        ip("netns", "add", host)
        stack.callback(ip, "netns", "del", host)
    ends = [f"{host[5:]}-eth" for host in HOSTS]
    ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for (host, address), end in zip(HOSTS.items(), ends, strict=True):
        ip("link", "set", end, "netns", host)
        ip("-n", host, "addr", "add", f"{address}/24", "dev", end)
        ip("-n", host, "link", "set", "lo", "up")
        ip("-n", host, "link", "set", end, "up")


def hosts(folder: Path) -> None:
    name, options = "nuat-wa", ["--epochs", "3", *SMALL, "--out", "run"]
    first = next(iter(HOSTS.values()))
    jobs = []
    with ExitStack() as stack:
        connect_hosts(stack)
        for number, host in enumerate(HOSTS):
            (folder / host).mkdir()
            launch = torchrun(
                *("--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"),
                *("--master-addr", first, "--master-port", "29400"),
            )
            jobs.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *launch, *TRAIN, name, *options],
                    cwd=folder / host,
                    env=os.environ | {"GLOO_SOCKET_IFNAME": f"{host[5:]}-eth"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        for (host, address), job in zip(HOSTS.items(), jobs, strict=True):
            output = job.communicate(timeout=600)[0]
            print(f"{host}, {address}: ended with {job.returncode}")
            print("".join(f"    {line}\n" for line in output.splitlines()), end="")
            files = sorted(file.name for file in (folder / host / "run").glob("*"))
            print(f"    files: {', '.join(files) or 'none'}")
    where = [folder / host / "run" for host in HOSTS if (folder / host / "run").exists()]
    one = folder / "one-host"
    launch = torchrun("--nproc-per-node", "2", "--master-port", str(free_port()))
    subprocess.run(
        [*launch, *TRAIN, name, *options[:-1], str(one)], check=True, capture_output=True
    )
    print(f"bit-equal to two ranks on one host: {[same_run(one, each) for each in where]}")


def main() -> None:
    stages = sys.argv[1:] or ["restart", "signals", "hosts"]
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        if "restart" in stages:
            for seed, ranks in enumerate(RANKS_OF_RESTART):
                restart(Path(folder), "nuat-wa", ranks, seed)
            restart(Path(folder), "atf", 2, seed=2)
        if "signals" in stages:
            signals(Path(folder))
        if "hosts" in stages:
            hosts(Path(folder))


if __name__ == "__main__":
    main()
