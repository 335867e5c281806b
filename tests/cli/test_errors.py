"""Mistakes of first-time users, each of which is answered with one line."""

import numpy as np
import pytest
import torch
from torch import nn

import nuat

NOTHING = "--out runs/none"


@pytest.mark.parametrize(
    "line, message",
    [
        (f"train nuat --eps abc {NOTHING}", "eps is 'abc', but must be a number such as 8/255"),
        (f"train nuat --eps 8/0 {NOTHING}", "eps is '8/0', but must be a number such as 8/255"),
    ],
)
def test_error_names_the_value_and_the_fix(call, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    outcome = call(line)
    assert outcome.status == 2 and not list(tmp_path.iterdir())
    assert message in outcome.err and outcome.err.count("\n") == 1


def test_samples_out_of_range_name_the_range():
    from nuat.data import class_balanced
    from nuat.errors import InputError

    for count in (0, -1, 5):
        with pytest.raises(InputError, match=f"{count} samples .* 4 images: request 1 to 4"):
            class_balanced(torch.tensor([0, 1, 0, 1]), count, 0)


def test_nuat_without_arguments_prints_its_help_and_no_error(call):
    outcome = call("")
    assert outcome.status == 2 and "evaluate" in outcome.out and "error" not in outcome.err


def test_version(call):
    outcome = call("--version")
    assert outcome.status == 0 and outcome.out.startswith("nuat ")


def test_an_interruption_says_how_to_resume(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(nuat.training, "fit", interrupted)
    outcome = call("train nuat --out never")
    assert outcome.status == 130 and "run the same command again to resume" in outcome.err


@pytest.mark.parametrize("command", ["reproduce digits", "bench normal"])
def test_torchrun_is_for_train_and_evaluate(call, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = call(f"{command} --out never")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and not list(tmp_path.iterdir())
    name = command.partition(" ")[0]
    assert f"nuat {name} runs in one process, but torchrun started 2" in outcome.err


def test_a_factory_that_fails_is_one_line(call, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("def make():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = call("evaluate failing:make --data digits --eps 0.1")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "failing:make raised ZeroDivisionError" in outcome.err
    assert "failing.py, line 2" in outcome.err


def test_the_state_dict_in_a_checkpoint_is_found(call, tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "epoch": 3}, tmp_path / "net.pt")
    line = f"evaluate {tmp_path}/net.pt --model small-cnn --data digits --eps 0.1"
    assert "features.0.weight is missing" in call(line).err


def test_differences_are_short():
    from nuat.config.serialization import diff

    attack = {"is": "PGD", "steps": 20, "loss": "ce_per_image", "ball": {"is": "Linf", "eps": 0.1}}
    (line,) = diff({"attacks": {"pgd-20": attack}}, {"attacks": {}})
    assert line == "attacks.pgd-20: PGD(...) here, nothing there"
    (line,) = diff({"a": "x" * 500}, {"a": "y"})
    assert len(line) < 120


def test_a_folder_of_something_else_is_no_evaluation(tmp_path):
    from nuat.errors import InputError
    from nuat.evaluation.log import EvaluationLog

    (tmp_path / "config.json").write_text('{"recipe": {}, "data": {}}')
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="not an evaluation; choose another --out"):
        EvaluationLog.open(tmp_path, {"model_fingerprint": "a", "attacks": {}})
    assert (tmp_path / "config.json").read_bytes() == before


def test_data_passed_from_python_need_the_data_option(call, tmp_path):
    from nuat.checkpoints.weights_io import write_weights
    from nuat.models import build_model

    f = build_model("small-cnn(width=4)", 10, 1)
    about = {"model": "small-cnn(width=4)", "data": "data", "ball": "Linf(0.1)", "channels": "1"}
    write_weights(tmp_path / "net.safetensors", f.state_dict(), about)
    outcome = call(f"evaluate {tmp_path}/net.safetensors")
    assert outcome.status == 2 and "which was passed from Python" in outcome.err


def test_a_wrong_attack_is_one_line(call, tmp_path):
    from nuat.checkpoints.weights_io import write_weights
    from nuat.models import build_model

    f = build_model("small-cnn(width=4)", 10, 1)
    write_weights(tmp_path / "n.safetensors", f.state_dict(), {"model": "small-cnn(width=4)"})
    outcome = call(f"evaluate {tmp_path}/n.safetensors --data digits --eps 0.1 --attack pdg-20")
    assert outcome.status == 2 and "did you mean 'pgd'?" in outcome.err
    assert not outcome.out


def test_a_long_name_leaves_the_figures_room():
    from io import StringIO

    from rich.console import Console

    from nuat.report import Row, render_table

    name = "nuat-wa (folder:photos(size=64), resnet18-nuat(width=4), Linf(4/255), 1 epoch)"
    rows = [
        Row(
            name=each,
            group=each,
            data="d",
            model="m",
            ball="b",
            clean_accuracy=0.5,
            worst_case_accuracy=0.25,
            cost=7.9,
        )
        for each in (name, name + "2")
    ]
    shown = Console(file=StringIO(), width=80)
    shown.print(render_table(rows))
    text = shown.file.getvalue()
    assert all(figure in text for figure in ("50.0", "25.0", "7.9")), text


def test_scores_print_their_figures_not_their_images():
    from nuat.evaluation import EvaluationResult

    scores = EvaluationResult(
        [0, 1], [3, 3], [3, 1], {"pgd-2": [False, False]}, {}, "Linf(0.1)", {}, 0, "a", {}
    )
    assert (
        repr(scores)
        == "EvaluationResult(2 images, Linf(0.1): clean 50.0%, pgd-2 0.0%, worst case 0.0%)"
    )


def test_results_on_other_data_are_not_saved_as_the_run_s(call, tmp_path, monkeypatch):
    from nuat.checkpoints.run import Run

    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(
        "other.npz", x_train=x, y_train=np.arange(40) % 10, x_test=x, y_test=np.arange(40) % 10
    )
    call("train nuat --epochs 1 --set 'model=small-cnn(width=4)' --out run")
    evaluate = "evaluate run --samples 10 --attack fgsm"
    assert call(evaluate).status == 0
    own = Run("run").scores
    outcome = call(f"{evaluate} --data npz:other.npz")
    assert outcome.status == 0 and "not the run's own data" in outcome.out
    assert Run("run").scores == own and len(own) == 1


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A run whose network, a Sequential of 1 channel and 10 classes, was given from Python."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mine")
    f = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    nuat.fit(nuat.get_recipe("normal", "digits").with_epochs(1), f, out=folder / "runs" / "mine")
    (folder / "mynet.py").write_text(
        "from torch import nn\n\n\ndef make(channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.Flatten(), nn.Linear(72, 10))\n"
    )
    (folder / "runs/mine/scores/one").mkdir(parents=True)
    (folder / "runs/mine/scores/one/config.json").write_text('{"attacks": {}}')
    x = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    for name, data, count in (("rgb", x, 10), ("few", x[..., 0], 4)):
        y = np.arange(40) % count
        np.savez(folder / f"{name}.npz", x_train=data, y_train=y, x_test=data, y_test=y)
    return folder


@pytest.mark.filterwarnings("default:there is no recipe")
@pytest.mark.parametrize(
    "line, message",
    [
        ("evaluate runs/mine", "was trained on a Sequential passed as an object"),
        ("evaluate runs/mine", "--model module:factory"),
        (
            "evaluate runs/mine --data npz:rgb.npz",
            "images of 1 channel (grayscale), but the data have 3",
        ),
        ("evaluate runs/mine --data npz:few.npz", "for 10 classes, but the data have 4"),
        (
            "train normal --data npz:rgb.npz --model mynet:make --init runs/mine --out none",
            "images of 1 channel (grayscale), but the data have 3",
        ),
        ("report runs", "name a folder inside it, such as runs/mine, or runs/*"),
        (
            "train normal --out runs/mine/scores/one",
            "not the config of a nuat run: choose another folder",
        ),
        ("evaluate runs/yours", "no weights file runs/yours, nor a run folder"),
    ],
)
def test_what_does_not_fit_a_run_is_an_error(call, mine, monkeypatch, line, message):
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(mine)
    outcome = call(line)
    assert outcome.status == 2 and message in outcome.err, outcome.err
    assert not (mine / "none").exists()


@pytest.mark.filterwarnings("default:there is no recipe")
def test_the_fallback_recipe_is_named_after_the_data_are_loaded(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call("train nuat --data folder:nowhere --out none")
    assert outcome.status == 2 and "no recipe" not in outcome.err
    assert outcome.err.count("\n") == 1
    x, y = np.zeros((40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez("own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    tiny = "--model 'small-cnn(width=4)' --max-time 0s"
    assert (
        "there is no recipe 'nuat' for npz:own.npz"
        in call(f"train nuat --data npz:own.npz {tiny} --out run").err
    )


def test_training_ends_with_the_command_that_evaluates_the_run(call, mine, monkeypatch):
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(mine)
    (mine / "own.py").write_text("")
    outcome = call("train normal --epochs 1 --model mynet:make --import own.py --out runs/named")
    assert outcome.out.endswith("nuat evaluate runs/named --model mynet:make --import own.py\n")


def test_a_path_is_no_network(mine):
    from nuat.errors import InputError

    images = torch.zeros(4, 1, 8, 8), torch.arange(4)
    with pytest.raises(InputError, match=r"not a torch\.nn\.Module; .*load_model"):
        nuat.evaluate("runs/mine", images, nuat.Linf(0.1))


def test_a_run_of_a_sequential_says_that_it_will_not_open(call, mine, monkeypatch):
    from nuat.models import startup_notes

    (line,) = startup_notes(nn.Sequential(nn.Flatten()))
    assert "can be reopened only with a function" in line and "--model module:factory" in line
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(mine)
    line = "evaluate runs/mine --model mynet:make --samples 10 --attack fgsm --out verdicts"
    assert call(line).status == 0


@pytest.mark.filterwarnings("default:there is no recipe")
@pytest.mark.parametrize(
    "line, message",
    [
        ("train nuat --data photos", "for files of your own, folder:photos"),
        ("train nuat --data folder:", "folder needs a path: folder:PATH"),
        ("train nuat --data 'folder:photos(size=64'", "bracket missing? folder:photos(size=64)"),
        (
            "train nuat --lr 0.1",
            "No such option: --lr: it is a field of the recipe, --set lr=VALUE",
        ),
        ("list", "Missing argument 'kind'. Choose from: recipes, attacks, models, data"),
        ("reproduce digits --seeds 0", "seeds is 0, but must be a whole number from 1 up"),
        ("train nuat --batch-size 32", "--set batch_size=VALUE"),
        ("train nuat --lam=4", "--set lam=VALUE"),
        ("bench nuat --precision bf16", "--set precision=VALUE"),
        ("train nuat --set lam=abc", "takes a Schedule (one of: a number, Constant(...), "),
        ("train nuat --set lr=rampp", "did you mean 'LinearRamp(...)'?), not rampp"),
        ("train nuat --set batch_size=abc", "batch_size is 64 and takes a whole number, not abc"),
        (
            "train nuat --set start=uniform",
            "(one of: Bernoulli(), Gaussian(), NoStart(), Uniform(); did you mean 'Uniform()'?",
        ),
        ("train nuat --set start=Clean", "did you mean 'NoStart()'?"),
        ("train nuat --set 'start=clean()'", "did you mean 'NoStart()'?"),
        ("train nuat --set start=Uniform", "did you mean 'Uniform()'?"),
        ("train pgd-at --set 'inner=PGD(start=Clean)'", "did you mean 'NoStart()'?"),
        ("train pgd-at --set 'inner=PGD(loss=dlr)'", "did you mean 'dlr_loss'?"),
        ("train nuat --set distance=frobenus", "did you mean 'frobenius'?"),
        ("train nuat --model 'small-cnn(width=abc)'", "width is abc, but must be a number"),
        ("train nuat --data 'cifar10(train=abc)'", "train is abc, but must be a number"),
        ("train nuat --device gpu", "no device 'gpu': write cuda, cuda:1 or cpu"),
        ("train nuat --data 'folder:photos(sise=64)'", "'sise'; did you mean 'size'?"),
        ("train nuat --model 'small-cnn(widht=4)'", "'widht'; did you mean 'width'?"),
        ("train nuat --model 'resnet18(widht=4)'", "'widht'; did you mean 'width'?"),
    ],
)
def test_a_typing_error_gets_the_likely_fix(call, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    outcome = call(line if line == "list" else f"{line} --out none")
    assert outcome.status == 2 and message in outcome.err, outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("pgd-20,gama-100", "more than one attack: repeat --attack"),
        ("pgd-20(restarts=2), fgsm", "more than one attack: repeat --attack"),
        ("pgd20", "did you mean 'pgd-20'?"),
        ("gama-fw20", "did you mean 'gama-fw-20'?"),
        ("fgsm-10", "fgsm has one step; for 10 steps use pgd-10"),
        ("rfgsm(steps=4)", "rfgsm has one step; for 4 steps use pgd-4"),
    ],
)
def test_a_wrong_attack_name_gets_the_likely_one(text, message):
    from nuat.attacks import parse_attack
    from nuat.errors import InputError

    with pytest.raises(InputError) as caught:
        parse_attack(text, nuat.Linf(0.1))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "setting, message",
    [
        ("start=Clean", "did you mean 'NoStart()'?"),
        ("start=Clean()", "did you mean 'NoStart()'?"),
        ("start='clean'", "did you mean 'NoStart()'?"),
        ("start=NoStart", "did you mean 'NoStart()'?"),
        ("start=random", "did you mean 'Uniform()'?"),
        ("start=None", "(one of: Bernoulli(), Gaussian(), NoStart(), Uniform())"),
        ("loss=ce", "did you mean 'ce_per_image'?"),
        ("loss=dlr", "did you mean 'dlr_loss'?"),
        ("success_at=all", "success_at takes 'last' or 'any', not all"),
        ("judge=any", "unknown setting of pgd 'judge'; did you mean 'success_at'?"),
        ("criterion='any'", "did you mean 'success_at'?"),
        ("nb_iter=20", "did you mean 'steps'?"),
        ("random_start=True", "did you mean 'start'?"),
        ("restarts='5'", "restarts takes a whole number, not '5'"),
    ],
)
def test_a_wrong_setting_of_an_attack_gets_the_right_spelling(setting, message):
    from nuat.attacks import parse_attack
    from nuat.errors import InputError

    with pytest.raises(InputError) as caught:
        parse_attack(f"pgd({setting})", nuat.Linf(0.1))
    assert message in str(caught.value)


def test_the_iterates_that_count_need_no_quotes():
    from nuat.attacks import parse_attack

    ball = nuat.Linf(0.1)
    expected = parse_attack("pgd-5(success_at='any')", ball)
    assert parse_attack("pgd-5(success_at=any)", ball) == expected


@pytest.mark.parametrize("text", ["aa", "AA", "standard", "Standard", "AutoAttack"])
def test_autoattack_has_the_names_of_papers(text):
    from nuat.attacks import canonical_name, parse_attack

    ball = nuat.Linf(0.1)
    assert parse_attack(text, ball) == parse_attack("autoattack", ball)
    assert canonical_name(text) == "autoattack"


@pytest.mark.parametrize(
    "text, name",
    [
        ("PGD-20", "pgd-20"),
        ("FGSM", "fgsm"),
        ("GAMA-FW-3(restarts=2)", "gama-fw-3(restarts=2)"),
        ("AutoAttack-rand", "autoattack-rand"),
        ("pgd-20(start=NoStart())", "pgd-20(start=NoStart())"),
        ("pdg-20", "pdg-20"),
        ("", ""),
    ],
)
def test_the_case_of_an_attack_does_not_matter(text, name):
    from nuat.attacks import canonical_name

    assert canonical_name(text) == name


def test_an_attack_has_one_name_in_results(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train normal --epochs 1 --set 'model=small-cnn(width=4)' --out run")
    for attack in ("AA", "standard", "autoattack"):
        assert call(f"evaluate run --samples 10 --eps 0.3 --attack {attack}").status == 0
    (scores,) = nuat.Run.open("run").scores.values()
    assert list(scores["attacks"]) == ["autoattack"]


def test_one_step_may_be_counted():
    from nuat.attacks import parse_attack

    parts = parse_attack('custom(parts=("pgd-2", "fgsm-1"))', nuat.Linf(0.1))
    assert parse_attack("fgsm-1", nuat.Linf(0.1)).steps == 1 and len(parts.parts) == 2


def test_a_class_with_one_image_is_named(tmp_path):
    from PIL import Image

    from nuat.data import load_dataset
    from nuat.errors import InputError

    for name, count in {"robin": 1, "wren": 3}.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(InputError, match=r"class 0 \(robin\) has only 1 image left"):
        load_dataset(f"folder:{tmp_path}(size=8)")


def test_an_unknown_setting_of_an_attack():
    from nuat.attacks import parse_attack
    from nuat.errors import InputError

    with pytest.raises(InputError, match="'restart'; did you mean 'restarts'"):
        parse_attack("pgd-20(restart=5)", nuat.Linf(0.1))
