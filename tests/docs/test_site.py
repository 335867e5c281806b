"""The site builds without a warning: no link and no anchor leads nowhere."""

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("sphinx", reason="needs the docs extra")


def test_the_site_builds_without_a_warning(tmp_path):
    line = f"-q -W --keep-going -c docs -b html . {tmp_path / 'html'}"
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *line.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in (tmp_path / "html" / "docs").glob("*.html")}
