from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import nuat
from nuat.attacks import PGD
from nuat.checkpoints.run import Run
from nuat.data import InMemoryDataset, load_dataset
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult
from nuat.models import build_model
from nuat.report import Row, build_rows, render_table, write_page
from nuat.report.curves import RunCurve
from nuat.report.figures import line_styles
from nuat.report.gallery import build_gallery
from nuat.report.table import DASH, best_rows, build_columns, shared_settings
from nuat.runtime.checksums import with_checksum
from nuat.threat_models import L2, Linf

ATTACKS = ("fgsm", "pgd-3(restarts=2)")
BALL = Linf(0.2)
HOSTILE = "<script>alert('$x_{$')</script>\x01"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[Run]:
    """Two runs with scores and one without."""
    folder = tmp_path_factory.mktemp("runs")
    runs = []
    for name, epochs in (("normal", 1), ("nuat", 3), ("nuat-wa", 2)):
        recipe = nuat.get_recipe(name, "digits").with_threat_model(BALL).with_epochs(epochs)
        recipe = dataclasses.replace(recipe, model="small-cnn(width=8)")
        runs.append(nuat.fit(recipe, out=folder / name, device="cpu"))
    for run in runs[:2]:
        scores = nuat.evaluate(network(run), load_dataset("digits").test, BALL, ATTACKS, samples=60)
        run.save_scores("test-60", scores.to_dict())
    return runs


@pytest.fixture
def runs(trained, tmp_path) -> list[Run]:
    """Copies of the trained runs, which a test may change."""
    return [copy(run, tmp_path / run.path.name) for run in trained]


def copy(run: Run, to: Path, **changes: object) -> Run:
    shutil.copytree(run.path, to)
    (to / "config.json").write_text(json.dumps(with_checksum({**run.config, **changes})))
    return Run.open(to)


def renamed(run: Run, to: Path, name: str, **changes: object) -> Run:
    return copy(run, to, recipe={**run.config["recipe"], "name": name}, **changes)


def network(run: Run) -> nn.Module:
    config = run.config
    f = build_model(config["model"], len(config["data"]["classes"]), config["channels"])
    f.load_state_dict(run.weights())
    return f


class Page(HTMLParser):
    """The elements, attributes and the results table of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.table: list[list[str]] = []
        self.text = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        inside = self.tags["table"] == 1
        if inside and tag == "tr":
            self.table.append([])
        if inside and tag in ("th", "td"):
            self.table[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.tags["table"] == 1 and self.table and self.table[-1]:
            self.table[-1][-1] += data.strip()

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def page(runs: list[Run], target: Path, **more: object) -> Page:
    return Page(write_page(runs, target, **more))


def gallery_images(page: Page) -> list[str]:
    return [value for value in page.values("src") if value.startswith("data:image/png;base64,")]


def page_scripts(page: Page) -> str:
    return "".join(re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL))


def figures(page: Page) -> list[str]:
    """The figures of a page as SVG."""
    prefix = "data:image/svg+xml;base64,"
    sources = [value for value in page.values("src") if value.startswith(prefix)]
    return [base64.b64decode(value.removeprefix(prefix)).decode() for value in sources]


def text(table, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def pixels(uri: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert image.size == (96, 96)
    return np.asarray(image, dtype=float)[6::12, 6::12]


def test_page_is_self_contained(runs, tmp_path):
    networks = {run.path: network(run) for run in runs}
    shown = page(runs, tmp_path / "page.html", models=networks)
    assert "http://" not in shown.html and "https://" not in shown.html
    assert shown.tags["script"] == 1  # page.js, which the policy of the page allows by its hash
    assert not {"link", "iframe", "object", "embed", "base"} & set(shown.tags)
    assert len(gallery_images(shown)) == 3 * 6 * 3
    assert all(value.startswith("data:image/") for value in shown.values("src"))
    assert not shown.values("href") and "url(" not in shown.html
    assert len(figures(shown)) == 5  # cost, falls, loss, accuracy, schedules
    for svg in figures(shown):
        names = {name for node in ElementTree.fromstring(svg).iter() for name in node.attrib}
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
        assert not {"script", "image", "foreignObject"} & tags and not any(
            name.startswith("on") for name in names
        )
    assert "@import" not in shown.html
    assert not list(tmp_path.glob("*.partial"))


def test_page_is_accessible(runs, tmp_path):
    networks = {run.path: network(run) for run in runs}
    shown = page(runs, tmp_path / "page.html", models=networks)
    robust = " ".join(f"{run.path.name} {100 * run.metrics[-1]['val_robust']:.1f}," for run in runs)
    assert any(robust.strip(",") in value for value in shown.values("alt"))
    assert len([value for value in shown.values("alt") if value]) == shown.tags["img"]
    captions = re.findall(r"<figcaption>(\w.+?)</figcaption>", shown.html)
    assert len(captions) == shown.tags["figure"] == 5 + 3
    assert shown.tags["title"] == shown.tags["h1"] == 1


def test_page_shows_the_accuracies_of_the_scores(runs, tmp_path):
    shown = page(runs, tmp_path / "page.html")
    head, *body = shown.table
    assert head[:5] == ["run", "clean%", "fgsm%", "pgd-3(restarts=2)%", "worst%"]
    assert [row[0] for row in body] == ["normal", "nuat", "nuat-wa"]
    for row, run in zip(body, runs[:2], strict=False):
        scores = EvaluationResult.from_dict(run.scores["test-60"])
        shares = [
            scores.clean_accuracy,
            *(scores.robust_accuracy(name) for name in ATTACKS),
            scores.worst_case_accuracy,
        ]
        assert row[1:5] == [f"{100 * share:.1f}" for share in shares]
    assert body[2][1:5] == [DASH] * 4
    assert f"small-cnn(width=8) · {BALL} · 60 images (test)" in shown.text


def test_one_run_without_an_epoch_has_a_page(tmp_path, trained):
    run = Run.start(tmp_path / "run", trained[0].config)
    shown = page([run], tmp_path / "page.html")
    assert not figures(shown)
    assert "0 of 1 epochs" in shown.text


def test_overfitting_is_reported(runs, tmp_path):
    runs[1].log(
        {
            **runs[1].metrics[-1],
            "epoch": 4,
            "catastrophic_overfitting": "robust <10%>",
            "stopped": True,
        }
    )
    shown = page(runs, tmp_path / "page.html")
    assert "nuat: robust <10%>; training was stopped." in shown.text
    assert shown.values("class").count("warning") == 1


def test_hostile_names_are_text(runs, tmp_path):
    data = {**runs[1].config["data"], "classes": [f"<img src=x>{i}\"'&" for i in range(10)]}
    run = renamed(runs[1], tmp_path / "hostile", HOSTILE, data=data, model="</style><b>")
    shown = page([runs[0], run], tmp_path / "page.html", models={run.path: network(runs[1])})
    assert shown.tags["script"] == 1 and "alert(" not in page_scripts(shown)
    assert shown.table[2][0].startswith("<script>alert('$x_{$')</script>")
    assert shown.table[2][1] == "</style><b>"
    assert any(value.startswith("clean image of <img src=x>") for value in shown.values("alt"))
    assert "x" not in shown.values("src")
    assert page([run], tmp_path / "one.html").tags["script"] == 1


def test_same_input_same_bytes(runs, tmp_path):
    pages = []
    for name in ("a.html", "b.html"):
        torch.rand(3)  # the page must not depend on the global generator
        networks = {run.path: network(run) for run in runs}
        pages.append(write_page(runs, tmp_path / name, models=networks).read_bytes())
    assert pages[0] == pages[1]


def test_a_page_without_items_is_refused(tmp_path):
    with pytest.raises(InputError, match="no runs"):
        write_page([], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_gallery_without_images_states_the_reason(runs, tmp_path):
    run = copy(runs[0], tmp_path / "own", data={**runs[0].config["data"], "name": "mine"})
    shown = page([run], tmp_path / "page.html", models={run.path: network(run)})
    assert not gallery_images(shown)
    assert "unknown data set 'mine'" in shown.text
    images = load_dataset("digits").val
    shown = page([run], tmp_path / "page.html", models={run.path: network(run)}, images=images)
    assert len(gallery_images(shown)) == 18


@pytest.mark.parametrize("ball", [BALL, L2(1.5)], ids=repr)
def test_gallery_shows_what_the_attack_did(trained, ball):
    f, images = network(trained[1]), load_dataset("digits").test
    items = build_gallery(f, images, "abcdefghij", ball, PGD(ball, steps=5), count=10)
    assert len({each.label for each in items}) == 10
    for each in items:
        x, y = images.batch(torch.tensor([each.index]))
        clean, adversarial = pixels(each.clean), pixels(each.adversarial)
        assert each.label == "abcdefghij"[int(y)]
        assert np.abs(clean - 255 * x[0, 0].numpy()).max() <= 0.5 + 1e-3
        delta = torch.tensor(adversarial - 255 * x[0, 0].numpy())[None, None] / 255
        assert ball.distance(delta, 0 * delta) <= ball.eps + 0.5 / 255 * (
            8 if ball == L2(1.5) else 1
        )
        magnified = 127.5 + each.factor * (adversarial - clean)
        assert np.abs(pixels(each.perturbation) - magnified).max() <= 1 + each.factor
        p = f.eval()(x).detach().softmax(1)[0]
        assert each.predicted == "abcdefghij"[int(p.argmax())]
        assert each.confidence == pytest.approx(float(p.max()), abs=1e-5)
        assert each.correct == (each.predicted == each.label)
        assert each.robust == (each.predicted_adv == each.label)
    assert any(each.correct and not each.robust for each in items)
    if ball == BALL:
        assert items[0].factor == pytest.approx(2.5)


def test_gallery_prefers_correctly_classified_images(trained):
    f, images = network(trained[1]), load_dataset("digits").test
    seen = build_gallery(f, images, "0123456789", BALL, PGD(BALL, steps=1), count=4)
    again = build_gallery(f, images, "0123456789", BALL, PGD(BALL, steps=1), count=4)
    other = build_gallery(f, images, "0123456789", BALL, PGD(BALL, steps=1), count=4, seed=1)
    assert all(each.correct for each in seen)
    assert seen == again
    assert {each.index for each in seen} != {each.index for each in other}


def test_gallery_of_color_images_of_another_size():
    class Brightness(nn.Module):
        def forward(self, x):
            mean = x.mean((1, 2, 3))
            return torch.stack([1 - 2 * mean, mean], 1)

    x = torch.linspace(0, 255, 4 * 3 * 32 * 32).to(torch.uint8).reshape(4, 3, 32, 32)
    images = InMemoryDataset(x, torch.tensor([0, 1, 0, 1]))
    items = build_gallery(
        Brightness(), images, ("dark", "light"), Linf(4 / 255), PGD(Linf(4 / 255)), 9
    )
    assert [each.index for each in items] == [0, 2, 1, 3]
    shown = Image.open(io.BytesIO(base64.b64decode(items[1].clean.partition(",")[2])))
    assert shown.mode == "RGB" and shown.size == (96, 96)
    assert (np.asarray(shown)[1::3, 1::3] == x[2].permute(1, 2, 0).numpy()).all()
    with pytest.raises(InputError, match="labels run from 0 to 1"):
        build_gallery(Brightness(), images, ("one",), Linf(4 / 255), PGD(Linf(4 / 255)))


def test_table_with_and_without_scores(runs):
    shown = text(render_table(build_rows(runs)))
    last = runs[2].metrics[-1]
    line = next(line for line in shown.splitlines() if line.startswith("nuat-wa"))
    figures = [f"{100 * last[key]:.1f}" for key in ("val_clean", "val_robust")]
    assert line.split()[1:7] == [*4 * [DASH], *figures]
    assert "validation" in shown
    assert f"digits · small-cnn(width=8) · {BALL} · 60 images (test)" in shown
    assert "validation" not in text(render_table(build_rows(runs[:2])))
    assert "restarts" not in text(render_table(build_rows(runs[2:])))
    assert text(render_table([])) is not None


def test_row_holds_the_values_of_the_run(runs):
    row = build_rows(runs)[1]
    scores = EvaluationResult.from_dict(runs[1].scores["test-60"])
    assert (row.name, row.data, row.model) == ("nuat", "digits", "small-cnn(width=8)")
    assert (row.ball, row.clean_accuracy, row.worst_case_accuracy) == (
        "Linf(0.2)",
        scores.clean_accuracy,
        scores.worst_case_accuracy,
    )
    assert row.robust_accuracy == {name: scores.robust_accuracy(name) for name in ATTACKS}
    assert row.seconds == runs[1].metrics[-1]["seconds"]
    assert row.cost == runs[1].metrics[0]["forward_equivalents"]
    assert (row.epochs, row.total_epochs, row.unfinished) == (3, 3, "")


def test_runs_of_the_same_name_get_distinct_names(runs, tmp_path):
    other = copy(runs[0], tmp_path / "seed", seed=7)
    model = copy(runs[0], tmp_path / "model", seed=7, model="small-cnn(width=4)")
    twin = copy(runs[0], tmp_path / "twin", model="small-cnn(width=4)", seed=7)
    assert [row.name for row in build_rows([runs[0], other, runs[1]])] == [
        "normal, seed 0",
        "normal, seed 7",
        "nuat",
    ]
    named = build_rows([other, model, twin])
    assert [row.group for row in named[1:]] == ["normal (small-cnn(width=4))"] * 2
    assert [row.name for row in named[1:]] == [
        f"normal (small-cnn(width=4)), in {run.path.name}" for run in (model, twin)
    ]


def row(worst: float | None, **changes: object) -> Row:
    plain = Row("a", "a", "digits", "small-cnn", "Linf(0.2)", "test", 9, 1.0, {"fgsm": 0.5}, worst)
    return dataclasses.replace(plain, **changes)


def test_best_row_is_chosen_among_comparable_rows():
    table = [row(0.5), row(0.7), row(None), row(0.9, ball="Linf(0.1)"), row(0.7)]
    assert best_rows(table) == {1, 4}
    assert best_rows([row(0.5)]) == frozenset()
    assert next(c for c in build_columns(table) if c.heading == "worst").marked == {1, 4}


def test_shared_settings_have_no_column():
    same, mixed = [row(0.5), row(0.7)], [row(0.5), row(0.7, ball="Linf(0.1)", images=1000)]
    assert shared_settings(same) == ["digits", "small-cnn", "Linf(0.2)", "9 images (test)"]
    assert shared_settings(mixed) == ["digits", "small-cnn"]
    shown = {column.heading: column.cells for column in build_columns(mixed)}
    assert shown["ball"] == ["Linf(0.2)", "Linf(0.1)"]
    assert shown["images"] == ["9 images (test)", "1,000 images (test)"]
    assert not {"data", "model"} & set(shown)


def test_costs_are_no_schedules():
    line = {"epoch": 1, "lam": 2.0, "seconds": 3.0, "forward_equivalents": 8.0, "peak_mib": 900.0}
    assert RunCurve("nuat", line_styles(["nuat"])[0], [line]).keys(validation=False) == ["lam"]
