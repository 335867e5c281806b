"""Sphinx: the site of docs/, results/ and benchmarks/. `make docs` builds it."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs" / "_ext")]

import nuat  # noqa: E402

project = "nuat"
author = "the nuat authors"
project_copyright = author
release = version = nuat.__version__

# The root of the repository is the source, so that a link works both in the repository and here.
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "results/**/README.md",
    "results/README.md",
    "benchmarks/*.md",
    "*.md",
]
exclude_patterns = [".*", "runs", "src", "tests", "dist", "build", "docs/_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "reference"]
myst_heading_anchors = 4
suppress_warnings = ["toc.not_included"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

highlight_language = "none"
copybutton_prompt_text = ">>> "
linkcheck_timeout = 20
linkcheck_workers = 4
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]

html_theme = "furo"
html_title = "nuat"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}


def add_other_pages(app, name, source):
    """List the pages of docs/ that the index does not name under its last heading."""
    if name == root_doc:
        named = set(re.findall(r"^[\w/]+$", source[0], re.MULTILINE))
        pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
        others = [page for page in pages if page not in named | {"index"}]
        source[0] = source[0].replace("OTHER PAGES", "\n".join(others))


def setup(app):
    app.connect("source-read", add_other_pages)
