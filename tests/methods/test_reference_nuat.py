"""NuAT, NuAT2 and NuAT2-WA against a plain transcription of the published training iteration.

Adversarial images must agree pixel for pixel; losses, weights and statistics to rounding. There are
two differences by design: the subgradient of the norm (theirs torch's, in the network's dtype; ours
of minimum norm, from a float64 SVD), and NuAT's second clean pass, whose effect on BatchNorm ours
replays. The first can turn the sign of a pixel only where its gradient is nothing but rounding, a
millionth of the usual. Surveyed in float32, lam 0 and not: no pixel of 38 million with ten classes,
D of full rank or not; with a hundred classes 14 of 31 million, in 2 of 132 networks. So the cases
here must be equal, in float32 and in float64 alike.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nuat
from nuat.models import build_model
from nuat.rng import Noise
from tests.reference import nuat as published

CLASSES, CHANNELS = 10, 3
LOSS_RTOL = {torch.float32: 1e-6, torch.float64: 1e-12}
STATE_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])

# a width of 2 has 8 features for 10 classes: there D is rank-deficient
NETWORKS = pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("small-cnn(width=2)", 0),
        ("small-cnn(width=4)", 1),
        ("small-cnn(width=4)", 2),
        ("small-cnn(width=16)", 3),
        ("without BatchNorm", 4),
        ("without BatchNorm", 5),
    ],
)


class Given(Noise):
    """Noise that returns the given signs once."""

    def __init__(self, signs):
        self.signs = [signs]

    def sign(self, x):
        return self.signs.pop()


def images(seed, size, dtype):
    """Images with many pixels at and near 0 and 1, labels and signs."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.rand(size, CHANNELS, 8, 8, generator=g) * 1.2 - 0.1).clamp(0, 1).to(dtype)
    y = torch.randint(CLASSES, (size,), generator=g)
    signs = (torch.randint(2, x.shape, generator=g) * 2 - 1).to(dtype)
    return x, y, signs


def network(name, seed, dtype):
    """A network after some training steps, so that its statistics and logits are not initial."""
    torch.manual_seed(seed)
    if name == "without BatchNorm":
        # nothing looks at the last row and column of an 8x8 image: their gradient is exactly 0
        layers = (
            nn.Conv2d(CHANNELS, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, CLASSES),
        )
        f = nn.Sequential(*layers).to(dtype)
    else:
        f = build_model(name, CLASSES, CHANNELS).to(dtype)
    optimizer = torch.optim.SGD(f.parameters(), lr=0.05, momentum=0.9)
    for k in range(6):
        x, y, _ = images(100 * seed + k % 3, 64, dtype)
        optimizer.zero_grad()
        F.cross_entropy(f(x), y).backward()
        optimizer.step()
    return f


def sgd(f):
    return torch.optim.SGD(f.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def teacher_of(f, averages):
    """The EMA with decay 0.99, its weights and statistics perturbed away from those of f."""
    teacher = averages(0.99)
    with torch.no_grad():
        for tensor in (*teacher.parameters(), *teacher.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand_like(tensor))
    return teacher


def our_iteration(method, f, optimizer, x, y, signs, epoch, batch, averages=None):
    """One iteration of a user's loop; x_adv is the input of f in train mode that is not x."""
    seen = []

    def look(module, given):
        if module.training:
            seen.append(given[0])

    hook = f.register_forward_pre_hook(look)
    ctx = nuat.StepContext(
        epoch=epoch, batch=batch, batch_size=64, noise=Given(signs), emas=averages
    )
    for loss in method.step(f, x, y, ctx):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hook.remove()
    if averages is not None:
        averages.update()
    (x_adv,) = [given for given in seen if given is not x]
    assert len(seen) == 2
    return x_adv, loss.detach()


def nuat_both(f, x, y, signs, epoch, batch):
    g = copy.deepcopy(f)
    lam = published.ramp_nuat(epoch)
    theirs = published.nuat_iteration(f, sgd(f), x, y, signs, lam, batch)
    return theirs, our_iteration(nuat.NuAT(), g, sgd(g), x, y, signs, epoch, batch)


def nuat2_both(f, x, y, signs, epoch, batch):
    g = copy.deepcopy(f)
    lam = published.ramp(epoch, 55)
    theirs = published.nuat2_iteration(f, sgd(f), x, y, signs, lam)
    return theirs, our_iteration(nuat.NuAT2(), g, sgd(g), x, y, signs, epoch, batch)


def nuat2_wa_both(f, x, y, signs, epoch, batch):
    g = copy.deepcopy(f)
    averages = nuat.EMAs(g)
    teacher = copy.deepcopy(teacher_of(g, averages))
    lam = published.ramp(epoch, 80)
    theirs = published.nuat2_iteration(f, sgd(f), x, y, signs, lam, teacher if epoch else f)
    method = nuat.NuAT2(lam=nuat.LinearRamp(4.0, 80), attack_ema_decay=0.99)
    return theirs, our_iteration(method, g, sgd(g), x, y, signs, epoch, batch, averages)


SLIDES = nuat.NuAT(
    start=nuat.Bernoulli(clamp=False), alternate=False, double_bn_update=False, reference="eval"
)


def slides_both(f, x, y, signs, epoch, batch):
    g = copy.deepcopy(f)
    weight = published.ramp_nuat(epoch) / 64
    theirs = published.slides_iteration(f, sgd(f), x, y, signs, weight)
    return theirs, our_iteration(SLIDES, g, sgd(g), x, y, signs, epoch, batch)


METHODS = pytest.mark.parametrize("both", [nuat_both, nuat2_both, nuat2_wa_both, slides_both])


@DTYPES
@NETWORKS
@METHODS
@pytest.mark.parametrize("epoch", [0, 37])
def test_one_iteration_gives_the_published_pixels_and_loss(both, name, seed, epoch, dtype):
    start = network(name, seed, dtype)
    for batch in (0, 1):
        for size in (64, 40, 5):
            x, y, signs = images(1000 * seed + 10 * size + batch, size, dtype)
            f = copy.deepcopy(start)
            (theirs, their_loss), (ours, our_loss) = both(f, x, y, signs, epoch, batch)
            flips = int((theirs != ours).sum())
            assert torch.equal(theirs, ours), f"batch {batch} of {size}: {flips} pixels differ"
            torch.testing.assert_close(our_loss, their_loss, rtol=LOSS_RTOL[dtype], atol=0)


def test_the_cases_above_distinguish_the_published_arithmetic_from_variants():
    f, (x, y, signs) = network("small-cnn(width=4)", 1, torch.float32), images(7, 40, torch.float32)

    def pixels(iteration, *args):
        g = copy.deepcopy(f)
        return iteration(g, sgd(g), x, y, signs, *args)[0]

    lam = published.ramp_nuat(37)
    teacher = copy.deepcopy(teacher_of(f, nuat.EMAs(f)))
    one, two = published.nuat_iteration, published.nuat2_iteration
    found = {
        "even": pixels(one, lam, 0),
        "odd": pixels(one, lam, 1),
        "odd, true divisor": pixels(one, lam * 64 / 40, 1),
        "two steps": pixels(two, lam),
        "two steps, constant divisor": pixels(two, lam * 40 / 64),
        "two steps, teacher": pixels(two, lam, teacher),
        "two steps, teacher, true divisor": pixels(two, lam * 64 / 40, teacher),
        "slides": pixels(published.slides_iteration, lam / 64),
    }
    for a in found:
        for b in found:
            assert a == b or (found[a] != found[b]).float().mean() > 0.005, (a, b)


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("size", [64, 40, 5])
def test_the_attack_of_nuat2_wa_has_the_divisor_of_the_loss(size, epoch):
    """In epoch 0 as well, where a lam that does not ramp up shows it; NuAT2's is the true size."""
    f, dtype = network("small-cnn(width=4)", 1, torch.float64), torch.float64
    x, y, signs = images(77, size, dtype)

    def pixels_of(method, averages):
        g = copy.deepcopy(f)
        averages = nuat.EMAs(g) if averages else None
        return our_iteration(method, g, sgd(g), x, y, signs, epoch, 0, averages)[0]

    def theirs(lam, teacher):
        g = copy.deepcopy(f)
        # without a step in between, the average of 0.99 is the network itself
        average = copy.deepcopy(f) if teacher else None
        return published.nuat2_iteration(g, sgd(g), x, y, signs, lam, average)[0]

    wa = nuat.NuAT2(lam=3.0, attack_ema_decay=0.99)
    assert torch.equal(pixels_of(wa, True), theirs(3.0, True))
    assert torch.equal(pixels_of(nuat.NuAT2(lam=3.0), False), theirs(3.0, False))
    true_size = nuat.NuAT2(lam=3.0, attack_ema_decay=0.99, constant_divisor=False)
    assert torch.equal(pixels_of(true_size, True), theirs(3.0 * 64 / size, True))
    if size < 64:
        assert not torch.equal(theirs(3.0, True), theirs(3.0, False))


ITERATIONS = [(0, 0, 64), (0, 1, 40), (30, 0, 64), (30, 1, 64), (30, 2, 64), (30, 3, 40)]
"""(epoch, batch, size): two short epochs, the second long after the first, so that lam is large."""


def train_theirs(kind, f, dtype):
    """Run the published iterations and return the averages by decay."""
    optimizer = sgd(f)
    averages = {tau: published.begin_average(f) for tau in (0.99, 0.9998)}
    for k, (epoch, batch, size) in enumerate(ITERATIONS):
        x, y, signs = images(5000 + k, size, dtype)
        if kind == "NuAT":
            lam = published.ramp_nuat(epoch)
            published.nuat_iteration(f, optimizer, x, y, signs, lam, batch)
        elif kind == "slides":
            weight = published.ramp_nuat(epoch) / 64
            published.slides_iteration(f, optimizer, x, y, signs, weight)
        else:
            teacher = None
            if kind == "NuAT2-WA":
                teacher = copy.deepcopy(f) if epoch > 0 else f
            if teacher not in (None, f):
                teacher.load_state_dict(averages[0.99])
            lam = published.ramp(epoch, 55)
            published.nuat2_iteration(f, optimizer, x, y, signs, lam, teacher)
        for tau, average in averages.items():
            published.update_average(average, f, tau)
    return averages


def train_ours(kind, f, dtype):
    """Run the same iterations with our methods, which request the EMA in the first step."""
    methods = {
        "NuAT": nuat.NuAT(),
        "NuAT2": nuat.NuAT2(),
        "NuAT2-WA": nuat.NuAT2(attack_ema_decay=0.99),
        "slides": SLIDES,
    }
    optimizer, averages = sgd(f), nuat.EMAs(f)
    average = averages(0.9998)
    alone = nuat.EMA(f, 0.99)
    for k, (epoch, batch, size) in enumerate(ITERATIONS):
        x, y, signs = images(5000 + k, size, dtype)
        our_iteration(methods[kind], f, optimizer, x, y, signs, epoch, batch, averages)
        alone.update(f)
    if kind == "NuAT2-WA":
        assert distance(alone.model.state_dict(), averages(0.99).state_dict()) == 0
    return {0.99: alone.model.state_dict(), 0.9998: average.state_dict()}


def distance(ours, theirs):
    """The largest difference of two state_dicts, in units of 1 + |theirs|."""
    assert ours.keys() == theirs.keys()
    apart = [((ours[key] - theirs[key]).abs() / (1 + theirs[key].abs())).max() for key in ours]
    return float(torch.stack(apart).max())


def without_counters(state):
    return {key: value for key, value in state.items() if "num_batches" not in key}


@DTYPES
@pytest.mark.parametrize("name", ["small-cnn(width=4)", "small-cnn(width=16)", "without BatchNorm"])
@pytest.mark.parametrize("kind", ["NuAT", "NuAT2", "NuAT2-WA", "slides"])
def test_six_iterations_give_the_published_weights_statistics_and_averages(kind, name, dtype):
    """Weights, running statistics and averages, in float32 and, without its rounding, in float64.

    A pixel whose sign rounding turns would show as a jump of 1e-5 or more; there is none. The
    integer counters of BatchNorm agree in the network; the published average has them as floats,
    ours as a copy, and no network reads them.
    """
    f = network(name, 3, dtype)
    g = copy.deepcopy(f)
    theirs, ours = train_theirs(kind, f, dtype), train_ours(kind, g, dtype)
    tolerance = STATE_TOLERANCE[dtype]
    before = without_counters(network(name, 3, dtype).state_dict())
    assert distance(before, without_counters(f.state_dict())) > 1000 * tolerance
    assert distance(g.state_dict(), f.state_dict()) < tolerance
    for tau in theirs:
        average = without_counters(theirs[tau])
        assert distance(without_counters(ours[tau]), average) < tolerance


@pytest.mark.parametrize("decay", [0.99, 0.9998])
def test_the_average_starts_from_the_weights_after_the_first_optimizer_step(decay):
    f = network("small-cnn(width=4)", 1, torch.float64)
    g = copy.deepcopy(f)
    before = copy.deepcopy(f.state_dict())
    x, y, signs = images(7, 64, torch.float64)

    theirs, optimizer = published.begin_average(f), sgd(f)
    published.nuat_iteration(f, optimizer, x, y, signs, 2.0, 1)
    published.update_average(theirs, f, decay)

    averages = nuat.EMAs(g)
    average = averages(decay)
    our_iteration(nuat.NuAT(lam=2.0), g, sgd(g), x, y, signs, 0, 1, averages)

    ours = average.state_dict()
    assert distance(without_counters(ours), without_counters(theirs)) < 1e-13
    assert distance(ours, g.state_dict()) == 0
    assert distance(without_counters(ours), without_counters(before)) > 1e-4


def test_lam_ramps_up_as_published():
    for epoch in range(100):
        assert nuat.NuAT().lam(epoch) == pytest.approx(published.ramp_nuat(epoch), rel=1e-12)
    for epoch in range(55):
        assert nuat.NuAT2().lam(epoch) == pytest.approx(published.ramp(epoch, 55), rel=1e-12)
