"""Properties of every attack, and definitions of single attacks."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import nuat
from nuat.attacks import attack_registry, candidates, parse_attack, runner
from nuat.attacks.candidates import record_candidates
from nuat.attacks.square import eta_pattern
from nuat.errors import InputError
from nuat.losses import ce_per_image, margin
from nuat.rng import PerImageNoise

BALLS = [nuat.Linf(0.1), nuat.Linf(0.0), nuat.L2(0.7)]
NAMES = ["fgsm", "pgd-5", "pgd-4(restarts=3)", "gama-10", "targeted-pgd-5(target_rank=-1)"]


class Net(nn.Module):
    """A small network with BatchNorm and dropout, some of it frozen, in mixed modes."""

    def __init__(self, channels=2, classes=5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, classes)
        self.head.bias.requires_grad_(False)
        self.train()
        self.body[1].eval()

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Linear(nn.Module):
    """z = (-w.x/2 - b, w.x/2 + b): the distance to the boundary is known."""

    def __init__(self, w, b=0.0):
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x):
        score = (x * self.w).flatten(1).sum(1) + self.b
        return torch.stack([-score / 2, score / 2], 1)


def images(count=6, shape=(2, 6, 5)):
    x = torch.rand(count, *shape)
    x[0], x[1] = 0, 1
    return x


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_x_adv_is_in_the_ball_and_the_network_is_unchanged(name, ball):
    f, x = Net(), images()
    y = torch.randint(5, (len(x),))
    x_before, state = x.clone(), {k: v.clone() for k, v in f.state_dict().items()}
    modes = [m.training for m in f.modules()]
    asking = [p.requires_grad for p in f.parameters()]

    x_adv = parse_attack(name, ball)(f, x, y)

    assert x_adv.shape == x.shape and not x_adv.requires_grad
    assert ball.contains(x_adv, x).all()
    assert torch.equal(x, x_before)
    assert [m.training for m in f.modules()] == modes
    assert [p.requires_grad for p in f.parameters()] == asking
    assert all(p.grad is None for p in f.parameters())
    assert all(torch.equal(state[k], v) for k, v in f.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_keyed_noise_makes_an_image_independent_of_its_batch(name):
    f, x = Net(), images(7)
    y, ids = torch.randint(5, (7,)), torch.arange(7) + 40
    each = parse_attack(name, nuat.Linf(0.1))
    together = each(f, x, y, PerImageNoise(0, ids, name))
    for part in ([0, 1, 2], [6, 3], [4], [5]):
        alone = each(f, x[part], y[part], PerImageNoise(0, ids[part], name))
        torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["fgsm", "pgd-10", "gama-20"])
@pytest.mark.parametrize("eps", [0.01, 0.02, 0.04])
def test_linear_network_is_misclassified_exactly_within_its_distance(name, eps):
    """Linf distance of x to the boundary of sign(w.x + b) is |w.x + b| / |w|_1."""
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(1, 4, 4, generator=generator)
    x = 0.25 + torch.rand(200, 1, 4, 4, generator=generator) / 2
    f = Linear(w, b=-float((w * 0.5).sum()))
    score = (x * w).flatten(1).sum(1) + f.b
    y = (score > 0).long()
    distance = score.abs() / w.abs().sum()
    clear = (distance - eps).abs() > 1e-4
    ball = nuat.Linf(eps)
    stands = nuat.attacks.is_robust(f, x, y, parse_attack(name, ball)(f, x, y), ball)
    assert torch.equal(stands[clear], (distance > eps)[clear])
    assert 20 < int(stands.sum()) < 180


def test_l2_pgd_finds_the_nearest_boundary_of_a_linear_network():
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(1, 4, 4, generator=generator)
    x = 0.4 + torch.rand(200, 1, 4, 4, generator=generator) / 5
    f = Linear(w, b=-float((w * 0.5).sum()))
    score = (x * w).flatten(1).sum(1) + f.b
    y, distance, ball = (score > 0).long(), score.abs() / w.norm(), nuat.L2(0.05)
    clear = (distance - 0.05).abs() > 1e-3
    stands = nuat.attacks.is_robust(f, x, y, parse_attack("pgd-40", ball)(f, x, y), ball)
    assert torch.equal(stands[clear], (distance > 0.05)[clear])


def test_more_restarts_never_help_the_network():
    f, x = Net().eval(), images(64)
    y = f(x).argmax(1)
    ball, keyed = nuat.Linf(0.05), lambda: PerImageNoise(0, torch.arange(64), "pgd")
    one, five = (
        nuat.attacks.is_robust(
            f, x, y, parse_attack(f"pgd-3(restarts={n})", ball)(f, x, y, keyed()), ball
        )
        for n in (1, 5)
    )
    assert not (five & ~one).any()


def test_pgd_with_one_step_from_the_clean_image_is_fgsm():
    f, x = Net(), images()
    y = torch.randint(5, (6,))
    ball = nuat.Linf(0.1)
    spelled = parse_attack("pgd-1(rel_step_size=1, start=NoStart())", ball)
    assert torch.equal(spelled(f, x, y), parse_attack("fgsm", ball)(f, x, y))


def test_targeted_pgd_reaches_the_target_class():
    f, x = Net().eval(), images(32)
    with torch.no_grad():
        order = f(x).argsort(1, descending=True)
    aim = nuat.TargetedPGD(nuat.Linf(1.0), steps=50, rel_step_size=0.02)
    assert torch.equal(aim.target_classes(f, x, order[:, 0]), order[:, 1])
    last = nuat.TargetedPGD(nuat.Linf(1.0), target_rank=-1)
    assert torch.equal(last.target_classes(f, x, order[:, 0]), order[:, -1])
    toward = aim.run_targeted(f, x, order[:, 1])
    before, after = (ce_per_image(f(v), order[:, 1]) for v in (x, toward))
    assert (after < before).all()
    assert (f(toward).argmax(1) == order[:, 1]).float().mean() > 0.5


def test_gama_follows_its_definition_for_three_steps():
    """Written out: softmax margin + lam |p - p0|^2, reference at the unclamped start."""
    f, x = Net().eval(), images(8)
    y, ids, eps = torch.randint(5, (8,)), torch.arange(8), 0.1
    x_adv = nuat.GAMA(nuat.Linf(eps), steps=3, rel_step_size=2.0, lam=7.0)(
        f, x, y, PerImageNoise(0, ids)
    )

    start = x + eps * PerImageNoise(0, ids).fold_in("restart", 0).sign(x)
    p0 = f(start).softmax(1).detach()
    v = start
    for _ in range(3):
        v = v.detach().requires_grad_()
        p = f(v).softmax(1)
        others = p.scatter(1, y[:, None], -1000.0)
        loss = others.max(1)[0] - p.gather(1, y[:, None])[:, 0] + 7 * ((p - p0) ** 2).sum(1)
        loss.sum().backward()
        stepped = (v.detach() + 2 * eps * v.grad.sign()).clamp(0, 1)
        v = (x + (stepped - x).clamp(-eps, eps)).clamp(0, 1)
    assert torch.equal(x_adv, v)


def test_gama_schedules_are_the_published_ones():
    gama = nuat.GAMA()
    assert [gama.lam(k) for k in (0, 1, 24, 25, 99)] == [50, 48, 2, 0, 0]
    sizes = [gama.rel_step_size(k) for k in (0, 59, 60, 84, 85)]
    assert sizes == pytest.approx([2, 2, 0.2, 0.2, 0.02])


def test_losses_by_hand():
    z, y = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]]), torch.tensor([2, 0])
    assert margin(z, y).tolist() == [1, -4]
    assert torch.allclose(ce_per_image(z, y).mean(), nuat.ce(z, y))
    other = torch.tensor([[1.0, 0.0, 2.0], [5.0, 1.0, 4.0]])
    assert float(nuat.squared_l2(z, other)) == 25
    assert float(nuat.frobenius(z, other)) == 5
    assert float(nuat.nuclear(z, other)) == pytest.approx(7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdg-20", "unknown attack 'pdg'; did you mean 'pgd'"),
        ("autoattak", "unknown attack"),
        ("pgd-20(step=3)", "step is not a setting; write step_size=2/255"),
        ("pgd(", "write a name"),
        ("pgd(start=Unifrm())", "did you mean 'Uniform("),
        ("fgsm(steps=__import__('os'))", "unknown name '__import__'"),
    ],
)
def test_a_bad_name_or_setting_raises(text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_attack(text, nuat.Linf(0.1))


def test_attacks_are_values():
    assert parse_attack("pgd-20", nuat.Linf(0.1)) == parse_attack("pgd(steps=20)", nuat.Linf(0.1))
    assert hash(nuat.PGD()) == hash(nuat.PGD())
    assert "steps=20" in repr(nuat.PGD()) and "Linf(8/255)" in repr(nuat.PGD())
    assert set(attack_registry) >= {"fgsm", "pgd", "targeted-pgd", "gama"}


class Copies(TorchDispatchMode):
    """Counts tensors made of Python numbers, each of which would synchronize a GPU."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.made += "lift_fresh" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("ball", BALLS[::2], ids=repr)
@pytest.mark.parametrize("name", ["apgd-ce-{}", "apgd-t-{}", "fab-t-{}", "square-{}"])
def test_an_iterate_makes_no_tensor_of_python_numbers(name, ball, monkeypatch):
    """This includes recording a candidate at every iterate, which happens on a GPU."""
    f, x = Net().eval(), images(8)
    y, made = f(x).argmax(1), []
    monkeypatch.setattr(runner, "CHECK_EVERY", 100)
    monkeypatch.setattr(candidates, "record_candidates", record_as_first)
    for steps in (11, 31):
        each, ranking = (
            parse_attack(name.format(steps), ball),
            nuat.attacks.classes_by_logit(f(x).detach(), y),
        )
        monkeypatch.setattr(type(each), "in_ball", everywhere)
        with nuat.nn.freeze.frozen_eval(f) as g, Copies() as copies:
            nuat.attacks.run_attack(
                each, f, g, x, (y + 1) % 5, PerImageNoise(0, torch.arange(8)), 0, ranking
            )
        made.append(copies.made)
    assert made[1] == made[0]


def everywhere(self, state):
    return torch.ones_like(state.y, dtype=torch.bool)


def record_as_first(attack, state, candidates, z, k):
    """Forget the candidates so far, so that each iterate is recorded as a new one."""
    candidates.exists = torch.zeros_like(candidates.exists)
    record_candidates(attack, state, candidates, z, k)


def test_the_eta_pattern_of_square_stays_on_its_device():
    assert eta_pattern(5, torch.device("meta")).device.type == "meta"
    assert eta_pattern(5, torch.device("cpu")) is eta_pattern(5, torch.device("cpu"))


@pytest.mark.parametrize("text", ["apgd-dlr", "apgd-t"])
def test_too_few_classes_raise_in_a_direct_call(text):
    f = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    with pytest.raises(InputError, match=r"needs [34] classes; there are 2"):
        parse_attack(text, nuat.Linf(0.1))(
            f, torch.rand(3, 3, 2, 2), torch.zeros(3, dtype=torch.long)
        )
