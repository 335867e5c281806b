"""The page in a browser: headless Chromium, driven by playwright, sorts, saves and switches."""

import csv
import io
import shutil

import pytest

from nuat.report import build_rows, write_page
from nuat.report.table import DASH, build_columns
from tests.report.test_report import HOSTILE, copy, network, renamed, trained  # noqa: F401

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("pages")
    runs = [copy(run, folder / run.path.name) for run in trained[:2]]
    data = {**runs[0].config["data"], "classes": [f"<b>{i}\"'&" for i in range(10)]}
    runs.append(renamed(trained[2], folder / "hostile", HOSTILE + ', "quoted"', data=data))
    models = {run.path: network(run) for run in runs[:2]}
    return runs, write_page(runs, folder / "page.html", models=models)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, pages):
    """The page in a tab of its own, which may neither complain nor request anything."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints, requests = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(pages[1].as_uri())
    yield tab
    tab.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def cells(tab):
    return tab.evaluate("[...document.querySelectorAll('#results tr')].map("
                        "row => [...row.cells].map(cell => cell.innerText.trim()))")  # fmt: skip


def test_every_section_is_there(tab, pages):
    text = tab.inner_text("main")
    for heading in (
        "Robust accuracy against cost",
        "What the images fall to",
        "Robust accuracy by class",
        "Which is better on the same images",
        "Training",
        "Under attack",
        "What is missing",
        "The runs",
    ):
        assert heading in text
    assert "has no evaluation" in text
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert tab.evaluate(broken) == 0


def test_the_table_has_the_cells_of_the_scores(tab, pages):
    runs, _ = pages
    for line, run in zip(cells(tab)[1:], runs[:2], strict=False):
        scores = run.scores["test-60"]
        figures = [scores["clean_accuracy"], *scores["robust_accuracy"].values()]
        figures.append(scores["worst_case_accuracy"])
        assert line[1 : 1 + len(figures)] == [f"{100 * share:.1f}" for share in figures]


def test_a_heading_sorts_and_sorts_the_other_way(tab):
    before = cells(tab)
    column = next(i for i, text in enumerate(before[0]) if text.startswith("clean"))
    button = tab.locator("#results thead button").nth(column)
    for order, sign in (("descending", -1), ("ascending", 1)):
        button.click()
        values = [row[column] for row in cells(tab)[1:]]
        assert values[-1] == DASH, "unknown values come last"
        numbers = [float(value) for value in values[:-1]]
        assert numbers == sorted(numbers, key=lambda number: sign * number)
        head = tab.locator("#results thead th").nth(column)
        assert head.get_attribute("aria-sort") == order
    assert sorted(cells(tab)[1:]) == sorted(before[1:])


def test_a_heading_sorts_by_the_keyboard(tab):
    tab.locator("#results thead button").first.focus()
    tab.keyboard.press("Enter")
    names = [row[0].casefold() for row in cells(tab)[1:]]
    assert names == sorted(names)


def test_the_table_is_saved_as_csv_and_markdown(tab):
    shown = [[" ".join(cell.split()) for cell in row] for row in cells(tab)]
    with tab.expect_download() as download:
        tab.click("[data-save=csv]")
    with open(download.value.path(), encoding="utf-8") as file:
        assert list(csv.reader(io.StringIO(file.read()))) == shown
    with tab.expect_download() as download:
        tab.click("[data-save=md]")
    with open(download.value.path(), encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert len(lines) == len(shown) + 1 and lines[0] == f"| {' | '.join(shown[0])} |"


def test_the_colors_switch(tab):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    tab.click(".theme")
    assert tab.evaluate(background) != light == "rgb(255, 255, 255)"
    tab.click(".theme")
    assert tab.evaluate(background) == light


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(tab, width):
    tab.set_viewport_size({"width": width, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_every_column_is_explained(tab, pages):
    headings = tab.locator("#results thead th")
    assert headings.count() == len(build_columns(build_rows(pages[0])))
    for i in range(headings.count()):
        assert headings.nth(i).get_attribute("title").endswith(".")
