"""Every method of the digits recipes, on a network with BatchNorm and on one without."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import nuat
from nuat.attacks.base import Attack
from nuat.methods import AT, AWP, GAT, TRADES, Free, NuAT, NuAT2, NuATH
from nuat.methods.cost import forward_equivalents
from nuat.schedules import Constant

ROWS = {row.name: row for row in nuat.list_recipes() if row.data == "digits"}
COSTS = {
    "normal": 3,
    "fgsm-at": 5,
    "rfgsm-at": 5,
    "atf": 4 * 3,  # 3 a replay
    "fbf": 5,
    "n-fgsm": 5,
    "gradalign": 11,  # FGSM 2, the loss 3, the gradient at the random point and its derivative 6
    "fgsm-pgi": 7,
    "r-mgm": 13,  # FGSM and R-FGSM 2 each, three passes trained
    "gat": 8,
    "gat-wa": 8,
    "nuat": 8,
    "nuat-wa": 8,
    "nuat-slides": 9,  # the attack's clean logits need a pass of their own
    "nuat-wa-slides": 9,
    "nuat-h": 8,  # while it does not fire
    "nuat-wa-h": 8,
    "nuat2": 11,
    "nuat2-wa": 11,
    "pgd-at": 23,
    "trades": 27,
    "trades-wa": 27,
    "mart": 26,
    "awp": 33,
}


class Net(nn.Module):
    """A network whose first layer is a negligible part of the cost."""

    def __init__(self, norm: bool, width: int = 40):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        for _ in range(5):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=not norm)]
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 10)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return self.head(self.body(x).mean((2, 3)))


def batches(count=3, size=8):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        x = torch.rand(size, 1, 8, 8, generator=generator).round(decimals=2)
        yield x, torch.randint(10, (size,), generator=generator)


def test_there_are_twenty_recipes():
    assert set(ROWS) == set(COSTS)


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "plain"])
@pytest.mark.parametrize("name", COSTS)
def test_three_steps_train_at_the_expected_cost(name, norm):
    torch.manual_seed(0)
    row, model = ROWS[name], Net(norm)
    x, y = next(batches())
    assert forward_equivalents(row.method, model, x, y, epoch=20) == pytest.approx(
        COSTS[name], abs=0.05
    )

    model.train().body[-1].eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    emas, memory, losses = nuat.EMAs(model), {}, []
    for batch, (x, y) in enumerate(batches()):
        model.seen.clear()
        ctx = nuat.StepContext(20, batch, 3, 8, lr=0.01, emas=emas, memory=memory)
        for loss in row.method.step(model, x, y, ctx):
            assert [m.training for m in model.modules()] == modes
            assert all(p.requires_grad for p in model.parameters())
            optimizer.zero_grad()
            loss.backward()
            assert all(p.grad is not None for p in model.parameters())
            optimizer.step()
            losses.append(float(loss.detach()))
        emas.update()
        assert model.seen, "there was no pass in train mode"
        reach = 3 if name == "n-fgsm" else 1  # it does not project onto the ball
        for seen in model.seen:
            if name == "gradalign":  # its random point is not clamped
                seen = seen.clamp(0, 1)
            assert replace(row.ball, eps=reach * row.ball.eps).contains(seen, x).all()
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(not torch.equal(before[k], p) for k, p in model.named_parameters())
    assert [m.training for m in model.modules()] == modes


ATTACKED = [
    row.method
    for row in ROWS.values()
    if isinstance(row.method, AT | TRADES) and row.ema_decay is None
]


@pytest.mark.parametrize("method", ATTACKED, ids=lambda m: type(getattr(m, "inner", m)).__name__)
def test_inner_attacks_leave_every_buffer_unchanged(method):
    model = Net(norm=True).train()
    x, y = next(batches())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x_adv = method.attack(model, x, y, nuat.StepContext(20))
    assert method.threat_model.contains(x_adv, x).all()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["gat", "nuat", "nuat2", "nuat2-wa", "nuat-slides"])
def test_single_and_two_step_methods_update_batchnorm_as_published(name):
    """BatchNorm counts the passes of the loss, and the second clean pass of GAT and NuAT."""
    model = Net(norm=True).train()
    x, y = next(batches())
    ctx = nuat.StepContext(20, 1, 3, 8, emas=nuat.EMAs(model))
    for loss in ROWS[name].method.step(model, x, y, ctx):
        loss.backward()
    counted = model.state_dict()["body.3.num_batches_tracked"]
    assert int(counted) == (3 if name in ("gat", "nuat") else 2)


def test_awp_leaves_the_weights_and_gives_them_the_gradient_of_a_larger_loss():
    torch.manual_seed(0)
    model = Net(norm=True).train()
    x, y = next(batches())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    method = AWP(AT(nuat.FGSM(nuat.Linf(0.1))), gamma=Constant(0.5))
    (plain,) = method.base.step(model, x, y, nuat.StepContext(20))
    (loss,) = method.step(model, x, y, nuat.StepContext(20))
    assert float(loss.detach()) > float(plain.detach()) + 0.1, (
        "the perturbed weights do not increase the loss"
    )
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.equal(before[k], p) for k, p in model.named_parameters())


def test_the_distance_of_nuat_can_be_replaced():
    model = Net(norm=True).train()
    x, y = next(batches())
    losses = {}
    for distance in (nuat.nuclear, nuat.frobenius, nuat.squared_l2):
        torch.manual_seed(0)
        method = NuAT(nuat.Linf(0.1), lam=4.0, distance=distance)
        for loss in method.step(model, x, y, nuat.StepContext(5, 1, batch_size=8)):
            loss.backward()
            losses[distance.__name__] = float(loss)
    assert len(set(losses.values())) == 3
    assert losses["frobenius"] < losses["nuclear"]


def test_lam_is_scaled_with_a_note_unless_the_batch_size_is_64():
    method = NuAT(lam=4.0)
    assert method.loss_weight((64, 10), nuat.StepContext(5, batch_size=64)) == 4.0 / 64
    assert method.startup_notes(64, 10) == []
    assert method.loss_weight((64, 10), nuat.StepContext(5, batch_size=256)) == 2 * 4.0 / 256
    assert "sqrt(256/64) = 2" in method.startup_notes(256, 10)[0]
    free = NuAT(lam=4.0, lam_batch_size=None)
    assert free.loss_weight((64, 10), nuat.StepContext(5, batch_size=256)) == 4.0 / 256
    assert free.startup_notes(256, 10) == []
    assert NuATH().startup_notes(128, 10) == NuAT().startup_notes(128, 10)


def test_lam_is_scaled_with_a_note_for_more_than_ten_classes():
    method = NuAT(lam=4.0)
    assert method.class_scale(64, 10) == method.class_scale(256, 10) == 1
    assert method.class_scale(None, 40) == method.class_scale(64, 40) == 0.5
    assert method.class_scale(40, 1000) == 0.5, "a matrix of 40 rows has the rank 40 at most"
    assert method.class_scale(64, 2) == method.class_scale(4, 10) == 1, "lam is never raised"
    assert method.startup_notes(64, 2) == []
    (note,) = method.startup_notes(64, 100)
    assert "For 100 in batches of 64 it is multiplied by sqrt(10/64) = 0.395" in note
    assert len(method.startup_notes(128, 100)) == 2
    free = NuAT(lam=4.0, lam_classes=None)
    assert free.class_scale(64, 100) == 1 and free.startup_notes(64, 100) == []
    for wrong in (0, -10, 2.5, "10"):
        with pytest.raises(nuat.InputError, match="lam_classes is"):
            NuAT(lam_classes=wrong)
    assert NuATH().startup_notes(64, 100) == method.startup_notes(64, 100)


@pytest.mark.parametrize("kind", [NuAT, NuAT2])
def test_the_pull_of_the_norm_on_an_image_does_not_grow_with_the_classes(kind):
    """In a matrix of full rank, the norm's gradient has the size sqrt(min(B, K))."""
    pulls = []
    for classes in (10, 40):
        method, ctx = kind(lam=4.0), nuat.StepContext(5, 1, batch_size=64)
        z = torch.randn(64, classes, dtype=torch.float64, requires_grad=True)
        method.regularizer(z, torch.zeros_like(z), ctx).backward()
        pulls.append(float(z.grad.norm()))
    assert pulls == pytest.approx([4.0 / 64 * 10**0.5] * 2)


@pytest.mark.parametrize("reference", ["train", "eval"])
@pytest.mark.parametrize("kind", [NuAT, NuAT2])
def test_loss_and_attack_scale_lam_to_the_classes(kind, reference):
    """40 classes: as a lam of half the size that is not scaled."""
    x, y = torch.rand(64, 1, 4, 4), torch.arange(64) % 40
    settings = {} if kind is NuAT2 else {"reference": reference}
    losses = []
    for method in (kind(lam=4.0, **settings), kind(lam=2.0, lam_classes=None, **settings)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 40)).train()
        losses += method.step(model, x, y, nuat.StepContext(5, 1, batch_size=64))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", [NuAT, GAT])
@pytest.mark.parametrize("reference", ["Eval", "", None, True])
def test_a_reference_that_does_not_exist_is_refused(kind, reference):
    with pytest.raises(nuat.InputError, match=r"unknown reference .*\(there are: eval, train\)"):
        kind(reference=reference)


@pytest.mark.parametrize("kind", [NuAT, GAT])
def test_the_reference_decides_the_attack_on_a_network_with_batchnorm_alone(kind):
    for norm in (True, False):
        torch.manual_seed(0)
        model, (x, y) = Net(norm).train(), next(batches())
        seen = {}
        for reference in ("train", "eval"):
            method = kind(nuat.Linf(0.3), lam=50.0, reference=reference)
            torch.manual_seed(1)
            model.seen.clear()
            next(method.step(model, x, y, nuat.StepContext(1, 1, batch_size=8)))
            (seen[reference],) = [given for given in model.seen if not torch.equal(given, x)]
        assert torch.equal(seen["train"], seen["eval"]) != norm


def test_the_divisor_of_a_smaller_last_batch():
    short, ctx = (40, 10), nuat.StepContext(5, batch_size=64)
    assert NuAT(lam=4.0).loss_weight(short, ctx) == 4.0 / 64
    assert NuAT(lam=4.0, constant_divisor=False).loss_weight(short, ctx) == 4.0 / 40


def test_free_keeps_its_perturbation_from_batch_to_batch():
    model, memory = Net(norm=False).train(), {}
    method = Free(nuat.Linf(0.1), replays=2)
    carried = []
    for batch, (x, y) in enumerate(batches(2)):
        model.seen.clear()
        size = 8 if batch == 0 else 5
        for loss in method.step(
            model, x[:size], y[:size], nuat.StepContext(0, batch, memory=memory)
        ):
            model.zero_grad()
            loss.backward()
        carried.append(memory["delta"].clone())
    assert torch.equal(carried[0][5:], carried[1][5:]), (
        "positions that a smaller batch lacks must stay"
    )
    assert carried[0].abs().max() == pytest.approx(0.1)
    assert not torch.equal(carried[0][:5], carried[1][:5])


@dataclass(frozen=True)
class Recorder(Attack):
    """Records the mode in which it sees the network."""

    def run(self, g, x, y, noise):
        MODES.append((g.training, g.body[3].training))
        return x


MODES: list = []


@pytest.mark.parametrize("train_mode", [True, False])
def test_an_attack_runs_the_network_in_the_requested_mode(train_mode):
    MODES.clear()
    Recorder(train_mode=train_mode)(Net(norm=True), *next(batches()))
    assert [(train_mode, train_mode)] == MODES
    assert ROWS["fbf"].method.inner.train_mode and not ROWS["pgd-at"].method.inner.train_mode


def test_every_recipe_names_its_source():
    for row in nuat.list_recipes():
        assert row.source in ("published code", "paper", "talk", "ours"), row.name
        base = row.name.removesuffix("-wrn")
        if base in ("r-mgm", "nuat-h", "nuat-wa-h", "gat-wa", "trades-wa", "rfgsm-at"):
            assert row.source == "ours", (row.name, row.data)
        if row.data in ("mnist", "imagenet100") and base.startswith("nuat"):
            assert row.source == "ours", (row.name, row.data)
        if base in ("r-mgm", "nuat-h", "nuat-wa-h"):
            assert "reconstruction" in row.note, (row.name, row.data)


def test_every_published_data_set_has_all_recipes():
    for data in {row.data for row in nuat.list_recipes()}:
        assert {row.name for row in nuat.list_recipes() if row.data == data} >= set(COSTS), data


def test_a_recipe_with_another_threat_model_contains_no_other_ball():
    for row in nuat.list_recipes():
        changed = replace(row).with_threat_model(nuat.L2(0.5))
        assert "Linf" not in repr(changed), row.name
