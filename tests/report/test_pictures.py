"""The pictures of a network: what they measure, and `nuat figures`."""

import base64
import json
import shutil
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import nuat
from nuat.attacks import NuclearAttack, logits
from nuat.errors import InputError
from nuat.report import pictures, write_page
from nuat.report.pictures.confusion import measure_confusion
from nuat.report.pictures.example import measure_example
from nuat.report.pictures.radii import draw_radii, measure_radii
from nuat.report.pictures.section import picture_section
from nuat.report.pictures.surface import measure_surface
from nuat.report.pictures.switching import draw_switching, two_step_spans
from nuat.rng import PerImageNoise
from tests.command_line import call  # noqa: F401

BALL = nuat.Linf(0.05)
CLASSES = list("abc")


def make_linear(classes):
    """A linear network, and images that it classifies correctly."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).requires_grad_(False)
    x = 0.3 + 0.4 * torch.rand(80, 1, 4, 4)
    net[1].bias -= net(x).mean(0)
    return net, x, net(x).argmax(1)


@pytest.fixture(scope="module")
def linear():
    return make_linear(3)


def test_robust_accuracy_against_eps_is_that_of_the_exact_distances():
    """With two classes, the boundary is |z_0 - z_1| / |w_0 - w_1|_1 away, and PGD goes there."""
    net, x, y = make_linear(2)
    wrong = torch.where(torch.arange(len(y)) < 8, 1 - y, y)
    found = measure_radii(net, x, wrong, BALL)
    exact = net(x).diff(dim=1)[:, 0].abs() / net[1].weight.diff(dim=0).abs().sum()
    exact = torch.where(wrong == y, exact, torch.zeros(()))
    ours = torch.tensor(found["distances"])
    torch.testing.assert_close(ours, exact.sort().values, rtol=0.06, atol=1e-6)
    expected = [float((exact > eps).float().mean()) for eps in found["eps"]]
    assert expected[0] == pytest.approx(0.9) and expected[-1] < 0.2
    assert found["pgd"] == pytest.approx(expected, abs=1.5 / len(x))
    assert "90.0% at 0, " in draw_radii({"linear": found})["alt"]


def test_radii_of_linf_end_at_1(linear):
    net, x, y = linear
    assert max(measure_radii(net, x[:4], y[:4], nuat.Linf(0.6))["eps"]) == pytest.approx(0.9)


def test_the_loss_surface_has_the_losses_of_its_points(linear):
    net, x, y = linear
    found = measure_surface(net, x[:1], y[:1], BALL, lam=2.0, points=5)
    ce, regularized = (torch.tensor(found[key]) for key in ("ce", "regularized"))
    assert found["steps"] == pytest.approx([-0.075, -0.0375, 0, 0.0375, 0.075])
    at_image = nn.functional.cross_entropy(net(x[:1]), y[:1])
    assert ce[2, 2] == pytest.approx(float(at_image)) == float(regularized[2, 2])
    # in a linear network the cross-entropy is largest, at a given r, where g is followed farthest
    assert (ce.diff(dim=1) > 0).all()
    weights = net[1].weight
    p = net(x[:1]).softmax(1)[0]
    g = (p @ weights - weights[y[0]]).sign().reshape(1, 1, 4, 4)
    z = net(x[:1] + 0.075 * g)
    assert ce[2, 4] == pytest.approx(float(nn.functional.cross_entropy(z, y[:1])), rel=1e-4)
    length = float((z - net(x[:1])).norm())
    assert regularized[2, 4] - ce[2, 4] == pytest.approx(2 * length, rel=1e-4)


def test_confusion_counts_the_predictions_under_the_attack(linear):
    net, x, y = linear
    found = measure_confusion(net, x, y, CLASSES, BALL, seed=3)
    each = found["attacks"]["nuclear"]
    batches = [
        NuclearAttack(BALL)(net, x[rows], y[rows], PerImageNoise(3, rows, "confusion"))
        for rows in torch.arange(len(x)).split(64)
    ]
    predicted = logits(net, torch.cat(batches)).argmax(1)
    pairs = list(zip(y.tolist(), predicted.tolist(), strict=True))
    assert each["matrix"] == [[pairs.count((i, j)) for j in range(3)] for i in range(3)]
    assert each["accuracy"] == float((predicted == y).double().mean())
    assert 0 < each["accuracy"] < 1 and 0 < each["entropy"] <= 1.585
    still = measure_confusion(net, x, y, CLASSES, nuat.Linf(1e-6))
    assert still["attacks"]["Frobenius"] == {
        "matrix": torch.diag(y.bincount(minlength=3)).tolist(), "accuracy": 1.0, "entropy": None,
    }  # fmt: skip


def test_the_example_adds_up(linear):
    net, x, y = linear
    found = measure_example(net, x[:20], y[:20], CLASSES, nuat.Linf(0.2))
    image, perturbation = torch.tensor(found["image"]), torch.tensor(found["perturbation"])
    assert torch.equal(image, x[found["index"]]) and perturbation.abs().max() <= 0.2 + 1e-6
    p = net((image + perturbation)[None]).softmax(1)[0]
    assert CLASSES[int(p.argmax())] == found["predicted_adv"] == found["target"]
    assert float(p.max()) == pytest.approx(found["confidence_adv"], abs=1e-4)
    assert found["predicted"] == CLASSES[int(y[found["index"]])] != found["target"]


def line(epoch, two_step, *began):
    return {
        "epoch": epoch, "clean_loss": 1 / epoch, "two_step": two_step, "two_step_began": list(began)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "spans"),
    [
        ([line(1, 0.0), line(2, 0.25, 1.5)], [(1.5, 1.75)]),
        ([line(1, 0.25, 0.75), line(2, 0.5)], [(0.75, 1.0), (1.0, 1.5)]),
        ([line(3, 0.5, 2.75)], [(2.75, 3.0), (2.0, 2.25)]),
        ([line(1, 0.5, 0.0, 0.5)], [(0.0, 0.25), (0.5, 0.75)]),
        ([line(1, 0.0)], []),
    ],
)
def test_two_step_spans_fill_the_fraction_of_their_epoch(lines, spans):
    assert list(two_step_spans(lines)) == spans
    total = sum(end - start for start, end in spans)
    assert total == pytest.approx(sum(line["two_step"] for line in lines))


def test_only_runs_of_nuat_h_have_two_step_spans():
    assert draw_switching([{"epoch": 1, "clean_loss": 0.5}]) is None
    assert "0.50 to 0.75" in draw_switching([line(1, 0.25, 0.5)])["alt"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rows = {name: nuat.get_recipe(name, "digits").with_epochs(1) for name in ("fgsm-at", "nuat-h")}
    for name, row in rows.items():
        nuat.fit(row.with_override("model", "small-cnn(width=4)"), out=folder / name)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def test_the_command_writes_every_picture(run, call):  # noqa: F811
    done = call(f"figures {run}/nuat-h --images 20")
    assert done.status == 0, done.err
    files = sorted(file.stem for file in (run / "nuat-h/figures").glob("*.svg"))
    assert files == sorted(pictures.NAMES) and len(done.out.splitlines()) == len(files)
    assert all("<svg" in file.read_text()[:400] for file in (run / "nuat-h/figures").iterdir())
    data = pictures.load(run / "nuat-h")
    assert data["images"] == 20 and set(pictures.MEASURED) < set(data)
    assert pictures.load(run / "nuat-h", "other weights") == {}
    assert pictures.load(run / "fgsm-at") == {}
    again = call(f"figures {run}/nuat-h --images 10 --only example")
    assert again.status == 0
    assert set(pictures.load(run / "nuat-h")) == set(data), "the other pictures stay"


def test_the_section_shows_all_runs_and_says_what_is_damaged(run, call):  # noqa: F811
    for name in ("fgsm-at", "nuat-h"):
        assert call(f"figures {run}/{name} --images 10 --only radii --only surface").status == 0
    (run / "broken").mkdir()
    shutil.copytree(run / "nuat-h", run / "broken", dirs_exist_ok=True)
    (run / "broken/figures.json").write_text("{")
    items = [nuat.report.open_item(run / name) for name in ("fgsm-at", "nuat-h", "broken")]
    rows = nuat.report.build_rows(items)
    section = picture_section(items, rows, {})
    (radii,) = section.radii
    assert rows[0].name in radii["alt"] and rows[1].name in radii["alt"]
    assert [name for name, _ in section.runs] == [row.name for row in rows]
    assert [len(charts) for _, charts in section.runs] == [1, 2, 1], "NuAT-H has its switching too"
    assert len(section.missing) == 1 and rows[2].name in section.missing[0]
    page = write_page(items, run / "page.html").read_text()
    assert "Pictures of the networks" in page and "is shown without pictures" in page
    shown = [radii, *(chart for _, charts in section.runs for chart in charts)]
    assert all(chart["src"] in page for chart in shown)
    other = {items[0].path.resolve(): nuat.load_model(items[1].path).model}
    assert len(picture_section(items[:1], rows[:1], other).runs) == 0, "of other weights"


def test_names_of_classes_are_shown_as_text(linear):
    net, x, y = linear
    hostile = ["<b>&", "$x_{$", "\x01\u202e"]
    images = nuat.InMemoryDataset(x, y)
    data = pictures.measure(net, images, hostile, BALL, names=["confusion", "example"], count=60)
    for chart in pictures.draw(data).values():
        svg = base64.b64decode(chart["src"].partition(",")[2]).decode()
        ElementTree.fromstring(svg)
        assert "<b>" not in svg and "\x01" not in svg + chart["alt"] + chart["caption"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{run}/fgsm-at --only switching", "not trained with NuAT-H"),
        ("{run}/fgsm-at --only surfaces", "surfaces: there are confusion, surface"),
        ("{run}", "has no config.json"),
        ("{run}/fgsm-at --images 0", "--images"),
    ],
)
def test_errors_of_the_command(run, call, line, message):  # noqa: F811
    done = call("figures " + line.format(run=run))
    assert done.status == 2 and message in done.err


def test_a_damaged_file_is_named(run):
    file = run / "fgsm-at/figures.json"
    file.write_text(json.dumps({"format_version": 1, "images": 3}))
    with pytest.raises(InputError, match="run nuat figures again"):
        pictures.load(run / "fgsm-at")
