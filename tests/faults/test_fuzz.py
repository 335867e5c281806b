"""A part of benchmarks/fuzz.py: random input ends without a traceback, a hang or half a file."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)

EXAMPLES = {"attack strings": 150, "--set": 100}


@pytest.fixture(scope="module")
def top():
    with fuzz.workplace() as folder:
        yield folder


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_random_input(top, kind):
    examples = EXAMPLES.get(kind, 15)
    assert fuzz.run_kind(kind, top, examples, start=1).total() >= examples
