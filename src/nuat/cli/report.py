"""The command `nuat report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nuat.cli.options import DataDir, Imports, apply_common_options
from nuat.cli.terminal import console, print_line, print_warning
from nuat.errors import InputError
from nuat.runtime.files import check_regular

if TYPE_CHECKING:
    from torch import nn

    from nuat.report import ReportItem


def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN_OR_EVALUATION...")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default: report.html in the first folder.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For weights without metadata, or of a model of your own.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A path or function that runs name as their data; repeatable."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page of running trainings on this machine.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of --serve; 0: any that is free.")] = 8000,
    data_dir: DataDir = None,
    imports: Imports = None,
) -> None:
    """Compare runs and evaluations in a table and one self-contained HTML page.

    The folders are those of `nuat train` and of `nuat evaluate --out`.
    """
    apply_common_options(imports, data_dir)
    if out is not None:
        check_regular(out)
    from nuat.data import trust_dataset
    from nuat.report import open_item, write_page

    for name in data or []:
        trust_dataset(name)
    if serve:
        _serve(folders, port)
        return
    items = [open_item(folder) for folder in _without_pages(folders)]
    models = _load_models(items, model)
    print_table(items, models)
    page = out or items[0].path / "report.html"
    print_line(f"report: {write_page(items, page, models=models, warn=print_warning)}")


def _serve(folders: list[Path], port: int) -> None:
    """Serve the page, without images under attack, until Ctrl-C."""
    from nuat.report import open_item
    from nuat.report.page import render_page
    from nuat.report.serve import HOST, page_server

    def render() -> str:
        return render_page([open_item(folder) for folder in _without_pages(folders)])

    render()  # so that a folder that does not exist is an error now
    with page_server(render, port) as server:
        print_line(f"http://{HOST}:{server.server_port}/ shows the page; Ctrl-C ends it")
        server.serve_forever()


def _without_pages(folders: list[Path]) -> list[Path]:
    """The folders without earlier reports: `runs/*` also matches those of `nuat reproduce`.

    If nothing else is left, the reports stay, so that the error names them.
    """
    reports = ("report.html", "table.md", "table.json")
    kept = [path for path in folders if not (path.name in reports and path.is_file())]
    return kept or folders


def print_table(items: Sequence[ReportItem], models: dict[Path, nn.Module] | None = None) -> None:
    """Print the table of the items and, if there are several seeds, the mean over the seeds."""
    from nuat.report import (
        aggregate_seeds,
        build_rows,
        footnotes,
        has_repeated_seeds,
        render_table,
    )

    rows = build_rows(items, models)
    console.print(render_table(rows), crop=False)
    if has_repeated_seeds(rows):
        console.print(render_table(rows, aggregate_seeds(rows)), crop=False)
    for line in footnotes(rows):
        print_line(line)


def _load_models(items: Sequence[ReportItem], model: str | None) -> dict[Path, nn.Module]:
    """The model of each run that can be loaded; the others get a warning.

    A run whose files do not name a model that can be built is loaded as `model`, if that is given.
    """
    from nuat.checkpoints import load_model
    from nuat.report import EvaluationFolder

    models: dict[Path, nn.Module] = {}
    for item in items:
        if isinstance(item, EvaluationFolder):
            continue
        try:
            models[item.path] = load_model(item.path).model
        except InputError as error:
            if model is None or not item.has_weights:
                print_warning(f"the report has no images for {item.path}: {error}")
                continue
            models[item.path] = load_model(item.path, model).model
    return models
