"""Training on two and four ranks, connected by gloo."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributed import TCPStore

import nuat
from nuat.checkpoints.run import Run
from nuat.methods import StepContext
from nuat.rng import derive_seed
from nuat.runtime.ranks import any_rank
from nuat.training.distributed import RankNoise
from tests.training.rank_steps import (
    BATCH,
    METHODS,
    Case,
    batches,
    error_after_a_death,
    fit_cases,
    small_recipe,
    train,
    train_all,
    train_step,
)
from tests.training.ranks import on_ranks

NO_BATCHNORM = [Case(name) for name in METHODS]
LOCAL_BATCHNORM = [Case("nuat-h", "local"), Case("awp", "local")]
SYNCHRONIZED = [Case(name, "sync") for name in ("nuat", "nuat2-wa", "awp", "fbf")]
FLOAT32 = Case("nuat", dtype=torch.float32)
LOCAL = Case("nuat", nuclear_norm="local")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    cases = [*NO_BATCHNORM, *LOCAL_BATCHNORM, *SYNCHRONIZED, FLOAT32, LOCAL]
    return on_ranks(2, tmp_path_factory.mktemp("two"), train_all, cases)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return on_ranks(
        4, tmp_path_factory.mktemp("four"), train_all, [Case("nuat"), SYNCHRONIZED[0], FLOAT32]
    )


def difference(one, other):
    """The largest difference of two states, of weights, EMAs, memories, losses and logs."""
    if isinstance(one, torch.Tensor):
        assert one.shape == other.shape
        return float((one - other).abs().max()) if one.numel() else 0.0
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple):
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one is other else abs(one - other)


@pytest.mark.parametrize("case", [*NO_BATCHNORM, *SYNCHRONIZED], ids=str)
def test_two_ranks_equal_one_process(case, two):
    assert difference(train(case), two[0][case]) < 1e-12


def test_float32_differs_by_rounding(two, four):
    one = train(FLOAT32)
    assert difference(one["model"], two[0][FLOAT32]["model"]) < 1e-6
    assert difference(one["model"], four[0][FLOAT32]["model"]) < 1e-6


@pytest.mark.parametrize("case", [Case("nuat"), SYNCHRONIZED[0]], ids=str)
def test_four_ranks_equal_one_process(case, four):
    assert difference(train(case), four[0][case]) < 1e-12


def test_the_ranks_are_bit_equal(two, four):
    for of_ranks in (two, four):
        for case in of_ranks[0]:
            assert all(difference(other[case], of_ranks[0][case]) == 0 for other in of_ranks[1:])


def test_every_part_of_the_methods_was_in_use(two):
    two_step = [log["two_step"] for log in two[0][Case("nuat-h")]["logs"]]
    assert 0 < sum(two_step) < len(two_step)
    assert len(two[0][Case("atf")]["memory"]["delta"]) == BATCH
    assert difference(two[0][Case("awp")], two[0][Case("trades-wa")] | {"emas": {}}) > 1e-3


def test_the_local_norm_is_that_of_each_rank(two, monkeypatch):
    """Against plain code: the mean over the ranks of what each would do with its own batches."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    step = train_step(LOCAL)
    shares = [list(batches(LOCAL, slice(rank, None, 2))) for rank in range(2)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for of_ranks in zip(*shares, strict=True):
        epoch, batch = of_ranks[0][:2]
        own = [step.make_batch(inputs) for _, _, inputs in of_ranks]
        total = sum(len(x) for x, _ in own)
        step.optimizer.param_groups[0]["lr"] = LOCAL.recipe.lr(epoch + batch / 4)
        step.optimizer.param_groups[0]["momentum"] = LOCAL.recipe.momentum(epoch + batch / 4)
        step.optimizer.zero_grad()
        for rank, (x, y) in enumerate(own):
            monkeypatch.setenv("RANK", str(rank))
            noise = RankNoise(derive_seed(0, "step", epoch, batch), total, x.device)
            ctx = StepContext(epoch, batch, 4, BATCH // 2, noise=noise)
            (loss,) = LOCAL.recipe.method.step(step.model, x, y, ctx)
            (loss * len(x) / total).backward()
        step.optimizer.step()
    weights = {name: value.detach() for name, value in step.model.named_parameters()}
    assert difference(weights, two[0][LOCAL]["model"]) < 1e-12
    assert difference(weights, two[0][Case("nuat")]["model"]) > 1e-3


def test_fit_on_ranks(tmp_path, capsys):
    of_ranks = on_ranks(2, tmp_path, fit_cases, tmp_path)
    assert [stopped for stopped, *_ in of_ranks] == [(False, [])] * 2
    assert [finished for _, finished, *_ in of_ranks] == [(True, [1])] * 2
    for _, _, (foreign, different), nan in of_ranks:
        assert "holds another run" in foreign
        assert "rank 1 (here) and rank 0 (there)" in different and "weight_decay" in different
        assert nan.startswith("epoch 1, batch 3 of 19: the loss is nan")
    # a stopped run goes on with another number of ranks, and keeps every row of the perturbation
    state = torch.load(tmp_path / "atf" / "checkpoint.pt", weights_only=True)
    assert (state["ranks"], state["epoch"], state["batch"]) == (2, 0, 7)
    assert len(state["memory"]["delta"]) == small_recipe().batch_size
    assert nuat.fit(small_recipe("atf"), out=tmp_path / "atf").finished
    assert "so far on 2 ranks, from here on 1" in capsys.readouterr().out
    assert Run(tmp_path / "nuat-wa").metrics[0]["val_clean"] > 0


def test_a_rank_that_dies_leaves_nobody_waiting(tmp_path):
    survivor, dead = on_ranks(2, tmp_path, error_after_a_death, tmp_path)
    assert dead is None
    assert survivor.startswith("rank 0 lost another rank") and "The same command" in survivor


def test_restarted_ranks_find_each_other(tmp_path):
    """torchrun gives the ranks of each attempt the same store, with the addresses of the last."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for attempt in "01":
        variables["TORCHELASTIC_RESTART_COUNT"] = attempt
        assert on_ranks(2, tmp_path, any_rank, True, False, **variables) == [[True, False]] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 598}, "make a batch of 1, too few for 2 ranks"),
        ({"batchnorm": "sync"}, "needs GPUs"),
    ],
)
def test_what_ranks_cannot_do_is_refused(changes, message, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(nuat.InputError, match=message):
        nuat.training.resolve(replace(small_recipe(), **changes), out=tmp_path)


class WithUnusedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(64, 10), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x.flatten(1))


def test_a_weight_without_a_gradient_is_refused(monkeypatch, tmp_path):
    nuat.training.resolve(small_recipe("fbf"), WithUnusedLayer(), out=tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(nuat.InputError, match=r"does not depend on unused\.weight"):
        nuat.training.resolve(small_recipe("fbf"), WithUnusedLayer(), out=tmp_path)


@pytest.mark.parametrize("field", ["nuclear_norm", "batchnorm"])
def test_unknown_choices_are_refused(field):
    with pytest.raises(nuat.InputError, match=f"unknown value of {field} 'al'"):
        replace(small_recipe(), **{field: "al"})
