"""Each kind of network that torch knows trains and opens again, or is refused before training."""

import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nuat
from nuat.checkpoints import read_weights
from nuat.errors import InputError

X = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def features(self, x):
        return self.norm(self.conv(x)).relu()

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def fit(model, out, recipe="fgsm-at", images=X):
    row = nuat.get_recipe(recipe, "digits").with_epochs(1).with_override("batch_size", "8")
    splits = dict.fromkeys(("train", "val", "test"), (images, Y))
    return nuat.fit(row, model, splits, out=out)


# weights that share memory


class TiedWeights(Net):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.two.weight = self.one.weight

    def features(self, x):
        return self.two(self.one(super().features(x)).relu())


class TiedToTranspose(Net):
    """The second layer multiplies by the transposed weights of the first, as autoencoders do."""

    def __init__(self):
        super().__init__()
        self.down, self.bias = nn.Linear(8, 8), nn.Parameter(torch.zeros(8))

    def features(self, x):
        x = self.down(super().features(x).movedim(1, -1)).relu()
        return nn.functional.linear(x, self.down.weight.T, self.bias).movedim(-1, 1)


class SharedModule(Net):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.two = self.one

    def features(self, x):
        return self.two(self.one(super().features(x)).relu())


class SharedBatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.again = self.norm

    def features(self, x):
        return self.again(super().features(x))


class ViewsOfOneBuffer(Net):
    def __init__(self):
        super().__init__()
        both = torch.rand(2, 3, 1, 1)
        self.register_buffer("mean", both[0])
        self.register_buffer("std", both[1])
        self.register_buffer("all", both)

    def features(self, x):
        return super().features((x - self.mean) / (self.std + 0.5))


class Parametrized(Net):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)


@pytest.mark.parametrize("recipe", ["normal", "nuat-wa"])
@pytest.mark.parametrize(
    "kind",
    [TiedWeights, TiedToTranspose, SharedModule, SharedBatchNorm, ViewsOfOneBuffer, Parametrized],
)
def test_weights_that_share_memory_are_written_and_read_back(kind, recipe, tmp_path):
    model = kind()
    run = fit(model, tmp_path / "run", recipe)
    fresh = kind().eval()
    fresh.load_state_dict(read_weights(run.path / "model.safetensors")[0])
    assert torch.equal(fresh(X), model(X))


# networks that are refused


class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(4)


class LazyBatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.LazyBatchNorm2d()


class TupleInTraining(Net):
    """As Inception and GoogLeNet with their auxiliary heads."""

    def forward(self, x):
        z = super().forward(x)
        return (z, z) if self.training else z


class ExtraState(Net):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


class SparseBuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.eye(3).to_sparse())


class RefusesItsWeights(Net):
    def __init__(self):
        super().__init__()
        self.register_state_dict_post_hook(lambda m, state, prefix, local: state.clear())


class KeywordOnly(Net):
    def forward(self, *, pixel_values):
        return super().forward(pixel_values)


class TwoInputs(Net):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Reentrant(Net):
    def features(self, x):
        return checkpoint(super().features, x, use_reentrant=True)


class WithLock(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class InPlaceSlice(Net):
    def forward(self, x):
        x[:, 0] = x[:, 0] * 2 - 1
        return super().forward(x)


class InPlaceReLU(Net):
    """It changes no image in [0, 1], but autograd does not allow it either."""

    def forward(self, x):
        return super().forward(torch.relu_(x))


class InPlaceView(Net):
    def forward(self, x):
        x.flatten(1).mul_(2)
        return super().forward(x)


class InPlaceNumpy(Net):
    def forward(self, x):
        x.detach().numpy()[:] *= 2
        return super().forward(x)


class InPlaceInTraining(Net):
    def forward(self, x):
        return super().forward(x.add_(0.01) if self.training else x)


def frozen():
    return Net().requires_grad_(False)


def without_parameters():
    return (
        nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Unflatten(1, (4, 3)))
        .append(nn.AvgPool1d(3))
        .append(nn.Flatten())
    )


def built_in_inference_mode():
    with torch.inference_mode():
        return Net()


def quantized():
    return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize(
    ("build", "recipe", "words"),
    [
        (Lazy, "normal", "head.weight has no shape yet"),
        (LazyBatchNorm, "normal", "norm.weight has no shape yet"),
        (TupleInTraining, "normal", "returns a tuple in train mode"),
        (ExtraState, "normal", "_extra_state in the state dict is a dict"),
        (SparseBuffer, "normal", "mask in the state dict is a tensor in the layout torch.sparse"),
        (quantized, "normal", "head.* in the state dict is a"),
        (RefusesItsWeights, "normal", "cannot read back its own weights: .*conv.bias"),
        (KeywordOnly, "normal", "does not take images .* TypeError"),
        (TwoInputs, "normal", "does not take images .* 'mask'"),
        (Reentrant, "normal", "use_reentrant=True; set it to False"),  # for validation
        (Reentrant, "fgsm-at", "use_reentrant=True; set it to False"),
        (WithLock, "nuat-wa", "cannot be copied, which an EMA"),
        (InPlaceSlice, "normal", "changes its input images in place"),
        (InPlaceReLU, "nuat-wa", "changes its input images in place"),
        (InPlaceView, "normal", "changes its input images in place"),
        (InPlaceNumpy, "normal", "changes its input images in place"),
        (InPlaceInTraining, "normal", "changes its input images in place"),
        (frozen, "normal", "all its parameters are frozen"),
        (without_parameters, "normal", "it has no parameters"),
        (built_in_inference_mode, "normal", "created under torch.inference_mode"),
        (lambda: torch.jit.script(Net()), "normal", "is TorchScript"),
        (lambda: torch.jit.trace(Net().eval(), X), "normal", "is TorchScript"),
        (lambda: torch.jit.freeze(torch.jit.script(Net().eval())), "normal", "torch.jit.freeze"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_cannot_be_trained_is_refused_before_training(
    build, recipe, words, tmp_path
):
    images = X.clone()
    with pytest.raises(InputError, match=words) as raised:
        fit(build(), tmp_path / "run", recipe, images)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists() and torch.equal(images, X)


def test_a_copy_is_needed_for_an_ema_alone(tmp_path):
    fit(WithLock(), tmp_path / "run", "normal")


def test_the_checks_leave_the_network_as_it_was(tmp_path):
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    row = nuat.get_recipe("nuat-wa", "digits")
    nuat.training.resolve(row, model, dict.fromkeys(("train", "val", "test"), (X, Y)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(weight.grad is None for weight in model.parameters())


# contexts in which gradients are off


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fit_trains_in_contexts_without_gradients(context, tmp_path):
    expected, model = Net(), Net()
    fit(expected, tmp_path / "plain", "nuat-wa")
    with context():
        # the images and their labels are tensors of the context as well
        splits = dict.fromkeys(("train", "val", "test"), (X.clone(), Y.clone()))
        row = nuat.get_recipe("nuat-wa", "digits").with_epochs(1)
        nuat.fit(row.with_override("batch_size", "8"), model, splits, out=tmp_path / "run")
        assert not torch.is_grad_enabled()
    assert all(map(torch.equal, expected.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_evaluate_attacks_in_contexts_without_gradients(context):
    model, attacks = Net().eval(), ["pgd-5", "autoattack", "fab-5"]
    y = model(X).argmax(1)
    expected = nuat.evaluate(model, (X, y), nuat.Linf(0.1), attacks)
    with context():
        result = nuat.evaluate(model, (X.clone(), y.clone()), nuat.Linf(0.1), attacks)
    assert (result.robust, result.notes) == (expected.robust, expected.notes)


# networks that evaluate attacks


@pytest.mark.parametrize(
    ("build", "square_only"),
    [
        (quantized, True),
        (ExtraState, False),
        (frozen, False),
        (TupleInTraining, False),
        (TiedWeights, False),
        (lambda: torch.jit.script(Net()), False),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_evaluate_attacks_what_training_refuses(build, square_only, tmp_path):
    model = build().eval()
    nuat.evaluate(model, (X, Y), nuat.Linf(0.1), ["square-20"], out=tmp_path / "square")
    if square_only:
        with pytest.raises(InputError, match="does not pass gradients to its input"):
            nuat.evaluate(model, (X, Y), nuat.Linf(0.1), ["pgd-5"])
    else:
        nuat.evaluate(model, (X, Y), nuat.Linf(0.1), ["pgd-5"], out=tmp_path / "pgd")


@pytest.mark.parametrize(
    "build", [Lazy, KeywordOnly, InPlaceReLU, InPlaceNumpy, built_in_inference_mode]
)
@pytest.mark.filterwarnings("ignore")
def test_evaluate_refuses_what_it_cannot_attack(build):
    images = X.clone()
    with pytest.raises(InputError) as raised:
        nuat.evaluate(build().eval(), (images, Y), nuat.Linf(0.1), ["pgd-5"])
    assert "\n" not in str(raised.value) and torch.equal(images, X)
