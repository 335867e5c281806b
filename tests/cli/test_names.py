"""Names of users and files are printed as they are: no markup, no emoji, no control characters."""

import io
import json
import warnings

import pytest
from rich.console import Console

import nuat
from nuat.cli import terminal
from nuat.data import Splits
from nuat.export.card import markdown_code, markdown_text
from nuat.runtime import text
from nuat.runtime.checksums import with_checksum
from nuat.runtime.progress import Progress
from nuat.runtime.text import escape_unprintable
from tests.command_line import call  # noqa: F401

NAMES = ["[a]", "[b", "[bold]x", ":cat:", "[link=http://x]y[/link]", "$a_b$ *c* `d` <e>"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        *((name, name) for name in NAMES),
        ("ü 中文 \u3000\u00a0", "ü 中文 \u3000\u00a0"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nerror: b\r", r"a\nerror: b\r"),
        ("a\u202eb", r"a\u202eb"),
        ("a\udcff", r"a\udcff"),
        ("a\x00\x07\x9b", r"a\x00\x07\x9b"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(given, shown, capsys):
    assert escape_unprintable(given) == shown
    for show in (terminal.print_line, terminal.print_warning, terminal.print_error):
        show(given)
    with Progress("p", 2) as progress:
        progress.print_line(given)
    lines = "".join(capsys.readouterr()).splitlines()
    assert lines.count(shown) == 2 and f"error: {shown}" in lines and f"warning: {shown}" in lines


@pytest.mark.parametrize("name", [*NAMES, "[/b]"])
def test_the_progress_bar_shows_names_as_they_are(name, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(
        "nuat.runtime.progress.plain_console",
        lambda **_: text.plain_console(file=file, force_terminal=True, width=150),
    )
    with Progress(name, 2) as progress:
        progress.advance(1, attack=name)
        progress.print_line(name)
    shown = Console(file=io.StringIO()).render_str(file.getvalue(), markup=False, emoji=False).plain
    assert shown.count(name) >= 3


@pytest.mark.parametrize("name", ["exp[a]", "[b]", ":cat:", "a\x1b[31mb", "[", "a\nb"])
def test_every_command_shows_the_name_of_a_folder(name, call, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    recipe = nuat.get_recipe("fgsm-at", "digits").with_epochs(1)
    nuat.fit(recipe.with_override("model", "small-cnn(width=4)"), out=name)
    shown = escape_unprintable(name)
    quoted = "'" + name + "'"
    evaluated = call(f"evaluate {quoted} --attack fgsm --samples 10")
    assert evaluated.status == 0 and f"{shown}: test, 10 images" in evaluated.out
    assert f"per-image results: {shown}/scores" in evaluated.out
    reported = call(f"report {quoted}")
    assert reported.status == 0 and f"report: {shown}/report.html" in reported.out
    other = call(f"evaluate {quoted} --attack fgsm --samples 10 --out {quoted}/other --seed 1")
    assert other.status == 0
    assert shown in call(f"evaluate {quoted} --data cifar1").err + call(f"report {quoted}x").err


def test_an_evaluation_folder_and_its_notes_are_shown_as_they_are(call, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    model = nuat.build_model("small-cnn(width=4)", 10, 1).eval()
    metadata = {"data": ":cat:[a]", "split": "[red]x", "model": "[/b]"}
    images = nuat.load_dataset("digits").test
    nuat.evaluate(model, images, nuat.Linf(0.1), "fgsm", samples=10, out="[e]", metadata=metadata)
    file = tmp_path / "[e]" / "scores.json"
    scores = json.loads(file.read_text())
    del scores["checksum"]
    file.write_text(json.dumps(with_checksum(scores | {"notes": ["<b>[/b]</b>"]})))
    outcome = call("report '[e]'")
    assert outcome.status == 0
    assert ":cat:[a]" in outcome.out and "[red]x" in outcome.out and "[/b]" in outcome.out
    page = (tmp_path / "[e]" / "report.html").read_text()
    assert "&lt;b&gt;[/b]&lt;/b&gt;" in page and "<b>[/b]" not in page


def test_a_warning_shows_names_as_they_are(call, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    splits = nuat.load_dataset("digits")
    data = Splits(splits.train, splits.val, splits.test, splits.classes, ":cat:[/b]")
    monkeypatch.setattr("nuat.data.load_dataset", lambda name: data)
    with warnings.catch_warnings():
        outcome = call("train nuat --data 'folder::cat:[/b]' --model smal --out x")
    assert "folder::cat:[/b]" in outcome.err and outcome.status == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("pgd-100(restarts=5)", "pgd-100(restarts=5)"),
        ("nuat_wa", "nuat_wa"),
        ("<script>", r"\<script\>"),
        ("a|b", r"a\|b"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("# title", r"\# title"),
        ("_a_ *b* `c`", r"\_a\_ \*b\* \`c\`"),
        ("a\n# b", r"a\n# b"),
    ],
)
def test_markdown_shows_text_as_it_is(given, shown):
    assert markdown_text(given) == shown


def test_code_in_markdown_cannot_be_closed_from_inside():
    assert markdown_code("Linf(8/255)") == "`Linf(8/255)`"
    assert markdown_code("a``b`") == "``` a``b` ```"
    assert markdown_code("a\n\n# b") == r"`a\n\n# b`"


def test_the_card_shows_hostile_names_as_text(tmp_path):
    model = nuat.build_model("small-cnn(width=4)", 3, 1).eval()
    classes = ("<img src=x>", "[a](http://b)", "`|*")
    loaded = nuat.checkpoints.LoadedModel(
        model, "small-cnn(width=4)", classes, data="folder:`x`<b>",
        metadata={"recipe": "`</code>\n# owned", "model": "small-cnn(width=4)"},
    )  # fmt: skip
    card = nuat.export.model_card(loaded)
    assert "\n# owned" not in card and "\\<img src=x\\>, \\[a\\](http://b), \\`\\|\\*" in card
    assert "`` folder:`x`<b> ``" in card
