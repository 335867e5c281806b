"""Verdicts are the same bytes however they are come by, and never lost."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

import nuat
from nuat.attacks import (
    PGD,
    Attack,
    AttackState,
    Ensemble,
    Square,
    parse_attack,
    run_attack,
)
from nuat.cli.evaluate import _parse_indices
from nuat.errors import InputError
from nuat.evaluation import runner
from nuat.evaluation.confusion import confusion_matrix, error_entropy
from nuat.evaluation.intervals import wilson
from nuat.evaluation.log import EvaluationLog
from nuat.rng import Noise
from nuat.runtime import ranks

BALL, IMAGES = nuat.Linf(0.15), 150
ATTACKS = ["custom(parts=('apgd-ce-20','apgd-t-10','fab-t-10','square-60'))", "pgd-10(restarts=3)"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that some attacks fool, in a run folder."""
    row = (
        nuat.get_recipe("fgsm-at", "digits")
        .with_epochs(4)
        .with_override("model", "small-cnn(width=8)")
    )
    return nuat.fit(row, out=tmp_path_factory.mktemp("verdicts") / "run")


@pytest.fixture(scope="module")
def net(run):
    return nuat.load_model(run.path).model


@pytest.fixture(scope="module")
def images():
    return nuat.load_dataset("digits").test.subset(torch.arange(IMAGES))


@pytest.fixture(scope="module")
def expected(net, images, tmp_path_factory):
    """The verdicts of the plainest way."""
    out = tmp_path_factory.mktemp("plain") / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, out=out, batch_size=64)
    assert 0.05 < scores.worst_case_accuracy < scores.clean_accuracy, (
        "an evaluation with nothing to find shows nothing"
    )
    fallen = {part: tally["broken"] for part, tally in scores.parts[ATTACKS[0]].items()}
    assert sum(count > 0 for count in fallen.values()) >= 2, fallen
    return (out / "verdicts.jsonl").read_bytes()


@pytest.mark.parametrize("batch_size", [7, 500])
def test_batch_sizes_give_the_same_bytes(net, images, expected, batch_size, tmp_path):
    nuat.evaluate(net, images, BALL, ATTACKS, out=tmp_path / "out", batch_size=batch_size)
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == expected


@pytest.mark.parametrize("seed", [1, 2])
def test_shuffles_give_the_same_bytes(net, images, expected, seed, tmp_path):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    out = tmp_path / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, indices=order, out=out, batch_size=64)
    assert scores.indices == order
    assert (out / "verdicts.jsonl").read_bytes() == expected


def command(run, out, *more):
    chosen = [part for name in ATTACKS for part in ("--attack", name)]
    return [
        *(sys.executable, "-m", "nuat.cli", "evaluate", str(run.path), "--eps", "0.15"),
        *("--indices", f"0-{IMAGES - 1}", "--batch-size", "20", "--out", str(out), *chosen, *more),
    ]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_two_processes_give_the_same_bytes(run, expected, tmp_path):
    ranks = [
        subprocess.Popen(
            command(run, tmp_path / "out"),
            env=environment(
                RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29533"
            ),
            stdout=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    logs = [tmp_path / "out" / f"log-{rank}.jsonl" for rank in (0, 1)]
    assert all(log.stat().st_size > 0 for log in logs)
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == expected


def lines(out):
    file = out / "log-0.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_killed_five_times_gives_the_same_bytes(run, expected, tmp_path):
    out, kills, chance = tmp_path / "out", 0, random.Random(5)
    while kills < 5:
        before = lines(out)
        process = subprocess.Popen(command(run, out), env=environment(), stdout=subprocess.DEVNULL)
        wanted = before + chance.randint(1, 12)
        while lines(out) < wanted and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        with (out / "log-0.jsonl").open("ab") as log:
            log.write(b'{"attack": "cut off in the mid')
    subprocess.run(command(run, out), env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert (out / "verdicts.jsonl").read_bytes() == expected


def test_what_is_done_is_not_done_again(net, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = nuat.evaluate(net, images, BALL, ["pgd-3"], samples=40, out=out)
    monkeypatch.setattr(runner, "run_attack", lambda *_: pytest.fail("attacked again"))
    again = nuat.evaluate(net, images, BALL, ["pgd-3"], samples=40, out=out)
    assert again.robust == first.robust and again.seconds == first.seconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ball": nuat.Linf(0.1)}, r"ball: Linf\(0.1\) here, Linf\(0.15\) there"),
        ({"attacks": ["pgd-4"]}, r"attacks.pgd-3"),
        ({"seed": 1}, r"seed: 1 here, 0 there"),
        ({"samples": 20}, r"images.count: 20 here, 30 there"),
        ({"search_precision": "bf16"}, r"search_precision: bf16 here, fp32 there"),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(net, images, tmp_path, change, message):
    asked = {"ball": BALL, "attacks": ["pgd-3"], "samples": 30, "out": tmp_path / "out"}
    nuat.evaluate(net, images, **asked)
    before = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, images, **{**asked, **change})
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == before


def test_a_folder_of_another_network_is_refused(net, images, tmp_path):
    nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10, out=tmp_path / "out")
    other = nuat.models.model_registry["small-cnn"](classes=10, channels=1, width=8)
    with pytest.raises(InputError, match=r"model_fingerprint: \w+ here, \w+ there"):
        nuat.evaluate(other, images, BALL, ["pgd-3"], samples=10, out=tmp_path / "out")


def test_a_folder_of_other_images_is_refused(net, images, tmp_path):
    x, y = images.batch(torch.arange(40))
    asked = {"ball": BALL, "attacks": ["pgd-3"], "out": tmp_path / "out"}
    nuat.evaluate(net, (x, y), **asked)
    for other in ((x.flip(3), y), (x, (y + 1) % 10)):
        with pytest.raises(InputError, match=r"images.content_hash: \w+ here, \w+ there"):
            nuat.evaluate(net, other, **asked)


CONFIG = {"model_fingerprint": "its fingerprint", "attacks": {}, "seed": 0}


def test_ranks_may_make_the_folder_at_once(tmp_path):
    for turn in range(30):
        folder, ready = tmp_path / str(turn), threading.Barrier(2)

        def start(rank, folder=folder, ready=ready):
            ready.wait()
            return EvaluationLog.open(folder, CONFIG, rank)

        with ThreadPoolExecutor(2) as ranks:
            assert [log.entries for log in ranks.map(start, (0, 1))] == [[], []]
        assert [file.name for file in folder.iterdir()] == ["config.json"]


def test_metadata_of_an_evaluation_must_stay_the_same(tmp_path):
    metadata = {"data": "digits", "model": "resnet18"}
    for _ in range(2):
        EvaluationLog.open(tmp_path / "new", CONFIG | {"metadata": metadata})
    for other, message in (
        ({"data": "mnist", "model": "resnet18"}, "metadata.data: mnist here, digits there"),
        ({"data": "digits", "model": "resnet18-nuat"}, "model: resnet18-nuat here, resnet18 there"),
        ({"data": "digits"}, "metadata.model: nothing here, resnet18 there"),
    ):
        with pytest.raises(InputError, match=message):
            EvaluationLog.open(tmp_path / "new", CONFIG | {"metadata": other})


def test_a_kill_while_the_folder_was_made_leaves_one_to_use(tmp_path):
    (tmp_path / "config.json-0.partial").write_text("{")
    assert EvaluationLog.open(tmp_path, CONFIG).entries == []


def test_a_damaged_line_is_named(net, images, tmp_path):
    asked = {"ball": BALL, "attacks": ["pgd-3"], "samples": 20, "out": tmp_path / "out"}
    first = nuat.evaluate(net, images, **asked, batch_size=8)
    file = tmp_path / "out" / "log-0.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:30] + "\0" * 9, *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"line 2 of .* is damaged; delete that line"):
        nuat.evaluate(net, images, **asked)
    file.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    assert nuat.evaluate(net, images, **asked).robust == first.robust


class Opaque(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.detach())


def test_a_network_without_gradients_is_for_square_alone(net, images):
    scores = nuat.evaluate(Opaque(net), images, BALL, ["square-100"], samples=40)
    assert scores.worst_case_accuracy < scores.clean_accuracy
    assert any("no gradient gets through" in note for note in scores.notes)
    for name in ("pgd-2", "apgd-ce-5", "fab-5", "fab-t-5"):
        with pytest.raises(InputError, match="does not pass gradients"):
            nuat.evaluate(Opaque(net), images, BALL, [name], samples=40)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    assert ranks.local_device() is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for rank, wanted in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert ranks.local_device() == wanted


@pytest.mark.parametrize(
    ("text", "message"), [("20-10", "runs backwards; write 10-20"), ("1,x", "not 'x'")]
)
def test_indices_that_cannot_be_meant_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        _parse_indices(text)


def test_many_indices_are_no_file():
    assert _parse_indices(",".join(map(str, range(5000)))) == list(range(5000))


def test_a_folder_of_something_else_is_refused_and_kept(net, images, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an evaluation"):
        nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_records_tell_what_happened(net, images, expected):
    records = [json.loads(line) for line in expected.splitlines()]
    assert [record["index"] for record in records] == list(range(len(images)))
    parts = nuat.parse_attack(ATTACKS[0], BALL).applicable(10)[0]
    seen = set()
    for record in records:
        found = record["attacks"][ATTACKS[0]]
        assert record["label"] == int(images.y[record["index"]])
        assert (record["margin"] < 0) == (record["predicted"] == record["label"])
        if found["broken_by"] is None:
            assert found["robust"] == (record["predicted"] == record["label"])
            continue
        seen.add(found["broken_by"])
        assert not found["robust"] and found["margin"] >= 0
        assert 0 < found["distance"] <= BALL.eps + 1e-6
        targeted = parts[found["broken_by"]].targets > 0
        assert (found["target"] is not None) == targeted
        assert found["target"] != record["label"]
        assert 0 <= found["step"] < found["forwards"] + 1
    assert len(seen) >= 2


def test_adversarial_images_are_kept_and_do_what_is_said(net, images, tmp_path):
    out = tmp_path / "out"
    scores = nuat.evaluate(
        net, images, BALL, ["apgd-ce-20"], out=out, save_adversarial=True, batch_size=90
    )
    kept = load_file(out / "adversarial.safetensors")
    ids, points = kept["apgd-ce-20/index"], kept["apgd-ce-20/x_adv"]
    fell = [i for i, stood in enumerate(scores.robust["apgd-ce-20"]) if not stood]
    assert set(ids.tolist()) == {i for i in fell if scores.predicted[i] == scores.labels[i]}
    x, y = images.batch(ids)
    assert len(ids) > 5 and (points - x).abs().max() <= BALL.eps + 1e-6
    assert (net(points).argmax(1) != y).all()


def test_memory_that_runs_out_halves_the_batches_and_loses_nothing(
    net, images, expected, tmp_path, monkeypatch
):
    real = runner.run_attack

    def short_of_memory(attack, f, g, x, *rest):
        if len(x) > 40:
            raise torch.OutOfMemoryError("out of memory")
        return real(attack, f, g, x, *rest)

    monkeypatch.setattr(runner, "run_attack", short_of_memory)
    out = tmp_path / "out"
    scores = nuat.evaluate(net, images, BALL, ATTACKS, out=out, batch_size=130)
    assert [note for note in scores.notes if "halved" in note] == [
        "out of memory with batches of 130 images: halved",
        "out of memory with batches of 65 images: halved",
    ]
    assert (out / "verdicts.jsonl").read_bytes() == expected


class Greedy(torch.nn.Module):
    """A network that asks for more memory than there is when a batch is too large for it."""

    def __init__(self, f, most):
        super().__init__()
        self.f, self.most = f, most

    def forward(self, x):
        if len(x) > self.most:
            torch.empty(2**48)
        return self.f(x)


def test_batches_are_halved_where_a_cpu_has_no_memory_left(net, images):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Greedy(net, 40)(images.batch(torch.arange(41))[0])
    scores = nuat.evaluate(Greedy(net, 40), images, BALL, ["pgd-2"], batch_size=130)
    assert [note for note in scores.notes if "halved" in note] == [
        "out of memory with batches of 130 images: halved",
        "out of memory with batches of 65 images: halved",
    ]
    plain = nuat.evaluate(net, images, BALL, ["pgd-2"])
    assert scores.robust == plain.robust


def test_memory_of_a_batch_that_was_too_large_is_free_before_smaller_ones(net, images, monkeypatch):
    real, held = runner.run_attack, []

    def short_of_memory(attack, f, g, x, *rest):
        assert not any(batch() is not None for batch in held)
        if len(x) > 10:
            held.append(weakref.ref(x))
            raise torch.OutOfMemoryError("out of memory")
        return real(attack, f, g, x, *rest)

    monkeypatch.setattr(runner, "run_attack", short_of_memory)
    nuat.evaluate(net, images, BALL, ["pgd-2"], samples=40, batch_size=40)
    assert len(held) == 2


def test_memory_that_is_not_even_enough_for_one_image_is_an_error(net, images, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(runner, "run_attack", never)
    with pytest.raises(torch.OutOfMemoryError):
        nuat.evaluate(net, images, BALL, ["pgd-3"], samples=10)


def test_snapshots_are_those_of_shorter_runs(net, images):
    whole = nuat.evaluate(net, images, BALL, {"pgd": PGD(BALL, steps=20, snapshots=(3, 7))})
    for k in (3, 7, 20):
        short = nuat.evaluate(net, images, BALL, {"pgd": PGD(BALL, steps=k)})
        column = "pgd" if k == 20 else f"pgd at {k}"
        assert whole.robust[column] == short.robust["pgd"]


def test_snapshots_are_those_of_shorter_runs_with_as_many_restarts(net, images, tmp_path):
    one, many = (
        PGD(BALL, steps=20, snapshots=(3,), restarts=4),
        PGD(BALL, steps=3, restarts=4),
    )
    out = tmp_path / "out"
    found = nuat.evaluate(net, images, BALL, {"pgd": one}, out=out, save_adversarial=True)
    assert found.robust["pgd at 3"] == nuat.evaluate(net, images, BALL, {"pgd": many}).robust["pgd"]
    tally = found.parts["pgd"]["pgd"]
    right = sum(a == b for a, b in zip(found.labels, found.predicted, strict=True))
    assert tally["images"] - tally["broken"] == sum(found.robust["pgd"]) < right
    records = (out / "verdicts.jsonl").read_text().splitlines()
    told = {r["index"]: r["attacks"]["pgd"] for r in map(json.loads, records)}
    kept = load_file(out / "adversarial.safetensors")
    ids, points = kept["pgd/index"], kept["pgd/x_adv"]
    lead = nuat.losses.margin(net(points), images.batch(ids)[1]).tolist()
    assert all(
        math.isclose(z, told[i]["margin"], abs_tol=1e-4)
        for i, z in zip(ids.tolist(), lead, strict=True)
    )
    assert len(ids) == tally["broken"]


def test_an_ensemble_takes_no_attack_with_snapshots():
    with pytest.raises(InputError, match="snapshots"):
        parse_attack("custom(parts=('apgd-ce', 'pgd-20(snapshots=(7,))'))", BALL)


class Walk(Attack):
    """The images become lighter by a thousandth at each of 12 points."""

    success_at: str = "any"

    def iterates(self, model, x, y, target, noise, restart):
        state = AttackState(x=x, y=y, noise=noise, x_adv=x)
        for k in range(12):
            state.x_adv = state.x + 0.001 * k
            yield state


class FooledAt(torch.nn.Module):
    """Two logits of a grey image; the second is ahead, by so much, after so many thousandths."""

    def __init__(self, leads):
        super().__init__()
        self.leads = torch.tensor([leads.get(k, -1.0) for k in range(12)])

    def forward(self, x):
        lead = self.leads[(x.flatten(1).mean(1) * 1000).round().long()]
        return torch.stack([-lead, torch.zeros_like(lead)], 1)


@pytest.mark.parametrize(
    ("build_inference_model", "itself", "iterate"),
    [
        ({2: 0.1}, {2: 0.1}, 2),
        ({2: 0.1, 5: 0.3, 7: 0.2}, {2: 0.1, 5: 0.3}, 2),
        ({2: 0.1, 5: 0.3, 7: 0.2}, {5: 0.3}, 5),
        ({2: 0.3, 5: 0.1}, {5: 0.1}, 5),
        ({2: 0.1, 11: 0.1}, {11: 0.1}, 11),
        ({2: 0.1, 5: 0.3}, {}, None),
    ],
)
def test_a_false_alarm_does_not_hide_a_true_one_behind_it(build_inference_model, itself, iterate):
    x, y = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    attack = Walk(nuat.Linf(0.1), success_at="any")
    done = run_attack(attack, FooledAt(itself), FooledAt(build_inference_model), x, y, Noise())
    assert done.adversarial.tolist() == [iterate is not None] * 3
    if iterate is not None:
        assert done.step.tolist() == [iterate] * 3
        assert torch.equal(done.x_adv, x + 0.001 * iterate)


def test_any_iterate_is_at_least_as_strong_as_the_last(net, images):
    found = {}
    for success_at in ("last", "any"):
        scores = nuat.evaluate(
            net, images, BALL, {"pgd": PGD(BALL, steps=10, success_at=success_at)}
        )
        found[success_at] = scores.robust["pgd"]
    pairs = zip(found["any"], found["last"], strict=True)
    assert all(last or not stood for stood, last in pairs)


def test_fewer_classes_leave_out_what_is_undefined_and_say_so():
    parts, notes = nuat.parse_attack("autoattack", BALL).applicable(3)
    assert list(parts) == ["apgd-ce", "fab-t", "square"]
    assert any("without apgd-t" in note for note in notes)
    assert any("2 targets in fab-t" in note for note in notes)
    parts, notes = nuat.parse_attack("autoattack-v1", BALL).applicable(2)
    assert list(parts) == ["apgd-ce", "fab", "square"] and len(notes) == 1
    assert nuat.parse_attack("autoattack", BALL).applicable(10)[1] == []


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
@pytest.mark.parametrize("version", ["autoattack", "autoattack-v1"])
def test_autoattack_runs_with_any_number_of_classes(classes, version):
    torch.manual_seed(classes)
    f = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, classes))
    x = torch.rand(5, 3, 2, 2)
    ball = nuat.Linf(0.01)
    short = Ensemble(ball, tuple(_short(parse_attack(version, ball).parts)), version)
    scores = nuat.evaluate(f, (x, f(x).argmax(1)), ball, {version: short}, classes=classes)
    assert any(scores.robust[version]), "images that stand have seen every target"
    assert bool(scores.notes) == (classes < 10)


def _short(parts):
    for name, part in parts:
        yield name, type(part)(part.ball, restarts=part.restarts, steps=3)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (7, 50), (5000, 10000)])
def test_wilson_solves_its_equation(count, total):
    """Its ends are the p with |count/n - p| = z sqrt(p (1 - p) / n)."""
    for end in wilson(count, total):
        miss = abs(count / total - end) - 1.959964 * (end * (1 - end) / total) ** 0.5
        assert abs(miss) < 1e-6


class Noisy(torch.nn.Module):
    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        z = self.net(x)
        match self.how:
            case "randomized":
                return z + torch.randn_like(z)
            case "neighbours":
                return z - 5 * z.mean(0)
            case "softmax":
                return z.softmax(1)
            case "quantised":
                return self.net((x * 8).round() / 8)
            case "root":
                return z + (x - x.detach()).abs().sum((1, 2, 3))[:, None].sqrt()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("randomized", "randomized"),
        ("neighbours", "depend on the other images"),
        ("softmax", "softmax"),
        ("quantised", "exactly zero"),
        ("root", "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_suspicions_are_said(net, images, how, said):
    scores = nuat.evaluate(Noisy(net, how), images, BALL, ["fgsm"], samples=40)
    assert any(said in note for note in scores.notes), scores.notes


def test_an_ordinary_network_is_not_suspected(net, images):
    assert nuat.evaluate(net.eval(), images, BALL, ["fgsm"], samples=40).notes == []
    notes = nuat.evaluate(net.train(), images, BALL, ["fgsm"], samples=40).notes
    net.eval()
    assert len(notes) == 1 and "train mode" in notes[0]


class Blind(Attack):
    """Does nothing; stands for attacks that masked gradients have disarmed."""

    def run(self, g, x, y, noise):
        return x


def test_square_ahead_of_the_gradient_attacks_is_said(net, images):
    parts = Ensemble(BALL, (("apgd-ce", Blind(BALL)), ("square", Square(BALL, steps=200))), "both")
    notes = nuat.evaluate(net, images, BALL, {"both": parts}, samples=40).notes
    assert any("Square" in note for note in notes)


def test_falls_to_restarts_alone_are_said(net, images):
    weak = PGD(BALL, steps=2, restarts=6)
    notes = nuat.evaluate(net, images, BALL, {"weak": weak}).notes
    assert any("only restarts break" in note for note in notes)


def test_a_bf16_search_is_verified_in_float32_and_says_so(net, images):
    scores = nuat.evaluate(net, images, BALL, ["apgd-ce-20"], search_precision="bf16", samples=100)
    exact = nuat.evaluate(net, images, BALL, ["apgd-ce-20"], samples=100)
    assert any("bfloat16" in note for note in scores.notes)
    assert abs(scores.robust_accuracy("apgd-ce-20") - exact.robust_accuracy("apgd-ce-20")) <= 0.05


def test_joint_attacks_have_batches_of_their_own(net, images, tmp_path):
    found = []
    for size, order in ((7, range(100)), (500, range(100)), (64, range(99, -1, -1))):
        out = tmp_path / str(size)
        asked = {"indices": order, "out": out, "batch_size": size}
        nuat.evaluate(net, images, BALL, ["nuclear-5"], **asked)
        found.append((out / "verdicts.jsonl").read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"indices": [0, 0]}, "duplicate"),
        ({"indices": []}, "none"),
        ({"indices": [0, 400]}, "400 is outside"),
        ({"indices": [-1]}, "-1 is outside"),
        ({"indices": [1], "samples": 3}, "both"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"search_precision": "fp16"}, "'fp32' or 'bf16'"),
        ({"save_adversarial": True}, "give out"),
    ],
)
def test_what_cannot_be_done_is_said(net, images, asked, message):
    with pytest.raises(InputError, match=message):
        nuat.evaluate(net, images, BALL, ["pgd-2"], **asked)


def test_error_entropy_counts_the_wrongly_predicted_classes():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    matrix = confusion_matrix(labels, torch.tensor([0, 1, 1, 0, 1, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 2, 0]]
    assert error_entropy(matrix) == pytest.approx(0.811278, abs=1e-6), "errors go to 1, 0, 1, 1"
    assert error_entropy(torch.ones(8, 8).long()) == pytest.approx(3)
    assert error_entropy(torch.tensor([[0, 5], [0, 5]])) == 0
