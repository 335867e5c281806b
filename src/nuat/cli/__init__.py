"""The command line: nuat train, evaluate, reproduce, report, bench, export, list, download.

The commands import torch and the rest of nuat in their bodies, so that `nuat --help` is fast.
"""

from nuat.cli.app import main

__all__ = ["main"]
