"""The README's and the quickstart's commands and snippets run; those of other pages parse."""

import ast
import shlex
import subprocess

import pytest
import typer

import nuat
from nuat.cli.app import app
from tests.docs.pages import PAGES, ROOT, blocks, commands, nuat_arguments

WALKED = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", ROOT / "docs" / "choosing_eps.md"]


@pytest.mark.parametrize("page", WALKED, ids=lambda page: page.stem)
def test_every_command_and_snippet_runs(page, call, tmp_path, monkeypatch):
    """One after another in an empty folder; the snippets of a page share their names."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, text in blocks(page, "bash", "python"):
        if language == "python":
            exec(compile(text, f"{page.name}", "exec"), names)
            continue
        for words in commands(text):
            if words[0] == "make":
                subprocess.run([*words, "-n"], cwd=ROOT, check=True, capture_output=True)
            elif words[0] != "pip":
                assert words[0] == "nuat", words
                outcome = call(shlex.join(words[1:]))
                assert outcome.status == 0, outcome.err


def nuat_commands():
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            for words in commands(text):
                arguments = nuat_arguments(words)
                if arguments and "..." not in arguments:
                    yield pytest.param(arguments, id=f"{page.stem}: {' '.join(arguments)}"[:70])


@pytest.mark.parametrize("arguments", list(nuat_commands()))
def test_every_command_of_the_documentation_parses(arguments):
    """Its options exist and have values of their types; nothing is run."""
    command = typer.main.get_command(app)
    context = command.make_context("nuat", list(arguments))
    name, subcommand, rest = command.resolve_command(context, arguments)
    subcommand.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_snippet_compiles_and_names_what_nuat_has(page):
    for _, text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            assert node.value.id != "nuat" or hasattr(nuat, node.attr), f"nuat.{node.attr}"
