"""The built-in models: size, cost, independence of the images of a batch, published layouts."""

from pathlib import Path

import pytest
import torch
from torch import nn

import nuat
from nuat.models import build_model, normalization_notes, startup_notes
from nuat.models.mnist import MNISTNet, TradesMNISTNet
from nuat.models.normalize import STATISTICS
from nuat.models.preact import WideResNet
from nuat.models.resnet import ResNet
from nuat.models.small import SmallCNN
from nuat.runtime.flops import count_flops

SIZES = {  # the side of an image, and settings that make the network small
    "small-cnn": (8, "width=4"),
    "mnist-net": (28, ""),
    "mnist-net-trades": (28, ""),
    "resnet18": (32, "width=4"),
    "resnet18-nuat": (32, "width=4"),
    "preact-resnet18": (32, "width=4"),
    "preact-resnet18-fbf": (32, "width=4"),
    "resnet18-imagenet": (224, "width=4"),
    "wrn-34-10": (32, "depth=10, width=1"),
    "wrn-34-10-nuat": (32, "depth=10, width=1"),
}
registered = pytest.mark.parametrize("name", SIZES)


def small(name, classes=10, channels=3):
    return build_model(f"{name}({SIZES[name][1]})", classes, channels)


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


def randomize_batchnorm(model, seed=0):
    """Set random BatchNorm statistics and weights, so that each of them affects the logits."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.copy_(torch.randn(values.shape, generator=generator) * 0.2)
            for values in (module.running_var, module.weight.data):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif isinstance(module, nn.Linear) and not module.weight.any():
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.2)
    return model.eval()


def test_every_registered_model_is_tested():
    assert set(SIZES) == {
        name for name in nuat.models.model_registry if not name.startswith(("own", "test"))
    }


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("resnet18", 3, 11_173_962),
        ("resnet18-nuat", 3, 11_173_962),
        ("preact-resnet18", 3, 11_172_170),  # resnet18 less the BatchNorms of 3 shortcuts
        ("preact-resnet18-fbf", 3, 11_172_170),
        ("resnet18-imagenet", 3, 11_181_642),
        ("wrn-34-10", 3, 46_160_474),
        ("wrn-34-10-nuat", 3, 46_172_810),
        ("mnist-net", 1, 1_791_466),
        ("mnist-net-trades", 1, 312_202),
        ("wrn-34-10(depth=28)", 3, 36_479_194),
        ("resnet18(width=16)", 3, 701_466),
        ("small-cnn(width=16)", 1, 24_058),  # 144 + 4608 + 18432, 224 of BatchNorm, 650
    ],
)
def test_number_of_parameters(name, channels, expected):
    with torch.device("meta"):
        assert parameters(build_model(name, 10, channels)) == expected


@pytest.mark.parametrize(
    ("name", "channels", "side", "billions"),
    [
        ("resnet18", 3, 32, 0.555),
        ("resnet18-nuat", 3, 32, 0.555),
        ("preact-resnet18", 3, 32, 0.555),
        ("preact-resnet18-fbf", 3, 32, 0.555),
        ("resnet18(width=16)", 3, 32, 0.0350),  # but for stem and head, a sixteenth
        ("wrn-34-10-nuat", 3, 32, 7.37),
        ("wrn-34-10", 3, 32, 6.66),
        ("wrn-34-10(depth=28)", 3, 32, 5.24),
        ("resnet18-imagenet", 3, 224, 1.814),
        ("mnist-net", 1, 28, 0.052413952),  # 784 (800 + 25600) + 196 (51200 + 102400) + 1610752
        ("mnist-net-trades", 1, 28, 0.0099524),  # 676 288 + 576 9216 + 100 18432 + 64 36864 + ...
    ],
)
def test_multiply_adds_per_image(name, channels, side, billions):
    with torch.device("meta"):
        model = build_model(name, 10, channels).eval()
        x = torch.empty(1, channels, side, side)
    assert count_flops(lambda: model(x)) / 2 == pytest.approx(billions * 1e9, rel=3e-3)


@registered
@pytest.mark.parametrize("channels", [1, 3])
def test_forward_returns_finite_logits_and_uses_all_weights(name, channels):
    model, side = small(name, 7, channels), SIZES[name][0]
    for training in (True, False):
        z = model.train(training)(torch.rand(2, channels, side, side))
        assert z.shape == (2, 7) and z.dtype == torch.float32
        assert torch.isfinite(z).all()
    z.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters()), "every weight is used"


@registered
def test_logits_in_eval_mode_do_not_depend_on_the_batch(name):
    model, side = randomize_batchnorm(small(name)), SIZES[name][0]
    x = torch.rand(4, 3, side, side)
    with torch.no_grad():
        together = model(x)
        for place in range(4):
            assert torch.allclose(model(x[place : place + 1])[0], together[place], atol=1e-5)
        x[1:] = torch.rand(3, 3, side, side)
        assert torch.allclose(model(x)[0], together[0], atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4, "but the images matter"


@registered
def test_gradient_reaches_the_whole_image(name):
    model, side = randomize_batchnorm(small(name)), SIZES[name][0]
    x = torch.rand(1, 3, side, side, requires_grad=True)
    model(x)[0, 0].backward()
    assert (x.grad.abs().amax((0, 1)) > 0).float().mean() > 0.9
    assert (x.grad.abs().amax((0, 2, 3)) > 0).all()


@registered
def test_equal_seeds_give_equal_weights(name):
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(small(name).state_dict())
    assert made[0].keys() == made[1].keys() == made[2].keys()
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])
    assert any(not torch.equal(made[0][key], made[2][key]) for key in made[0])


# differences between published implementations


def test_resnet18_nuat_has_equal_state_dict_but_another_function():
    plain, published = small("resnet18"), small("resnet18-nuat")
    assert [(k, v.shape) for k, v in plain.state_dict().items()] == [
        (k, v.shape) for k, v in published.state_dict().items()
    ]
    published.load_state_dict(randomize_batchnorm(plain).state_dict())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert (plain(x) - published.eval()(x)).abs().max() > 1e-3


def reference_resnet(w, x, extra_relu):
    """Compute ResNet-18 in eval mode from its state dict, without modules."""

    def norm(x, name):
        values = [w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (value[None, :, None, None] for value in values)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def conv(x, name, stride=1):
        kernel = w[f"{name}.weight"]
        return nn.functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = norm(conv(x, "conv1"), "bn1").relu()
    for stage in (1, 2, 3, 4):
        for place in (0, 1):
            name = f"layer{stage}.{place}"
            stride = 2 if stage > 1 and place == 0 else 1
            branch = norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu()
            branch = norm(conv(branch, f"{name}.conv2"), f"{name}.bn2")
            if extra_relu:
                branch = branch.relu()
            if stride == 2:
                x = norm(conv(x, f"{name}.shortcut.0", 2), f"{name}.shortcut.1")
            x = (branch + x).relu()
    return x.mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]


@pytest.mark.parametrize("name", ["resnet18", "resnet18-nuat"])
def test_resnet18_equals_plain_transcription(name):
    model, x = randomize_batchnorm(small(name)), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference_resnet(model.state_dict(), x, extra_relu=name.endswith("nuat"))
        assert torch.allclose(model(x), expected, atol=1e-4)


def reference_preact(w, x, shortcut_from_x):
    """Compute PreActResNet-18 in eval mode from its state dict, without modules."""

    def norm_relu(x, name):
        values = [w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (value[None, :, None, None] for value in values)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()

    x = nn.functional.conv2d(x, w["conv1.weight"], padding=1)
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        activated = norm_relu(x, f"blocks.{block}.bn1")
        branch = nn.functional.conv2d(activated, w[f"blocks.{block}.conv1.weight"], None, stride, 1)
        branch = norm_relu(branch, f"blocks.{block}.bn2")
        if (kernel := w.get(f"blocks.{block}.shortcut.weight")) is not None:
            x = nn.functional.conv2d(x if shortcut_from_x else activated, kernel, None, stride)
        x = nn.functional.conv2d(branch, w[f"blocks.{block}.conv2.weight"], padding=1) + x
    return norm_relu(x, "bn").mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]


@pytest.mark.parametrize("name", ["preact-resnet18", "preact-resnet18-fbf"])
def test_preact_resnet18_equals_plain_transcription(name):
    model = randomize_batchnorm(small(name)).double()
    x, w = torch.rand(2, 3, 32, 32).double(), model.state_dict()
    with torch.no_grad():
        z, from_x = model(x), reference_preact(w, x, shortcut_from_x=True)
        after_relu = reference_preact(w, x, shortcut_from_x=False)
    expected, other = (from_x, after_relu) if name.endswith("fbf") else (after_relu, from_x)
    assert torch.allclose(z, expected, rtol=1e-9) and (z - other).abs().max() > 1e-3


def test_wrn_starts_as_published_with_trades():
    torch.manual_seed(0)
    model = build_model("wrn-34-10(depth=16, width=2)", 10, 3)
    scores = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            kernel = module.kernel_size[0]
            scores.append(module.weight / (2 / (kernel * kernel * module.out_channels)) ** 0.5)
            assert scores[-1].std().item() == pytest.approx(1, abs=0.1)
    scores = torch.cat([score.detach().flatten() for score in scores])
    assert scores.std().item() == pytest.approx(1, abs=0.01)
    assert scores.abs().max() > 4, "normal, not uniform"
    assert not model.linear.bias.any() and model.linear.weight.any()


def test_wrn_nuat_starts_from_the_defaults_of_torch():
    torch.manual_seed(0)
    model = build_model("wrn-34-10-nuat(depth=16, width=2)", 10, 3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5  # U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))
            assert 0.8 * bound < module.weight.abs().max() <= bound
            assert module.bias.any()


def test_wrn_nuat_has_batchnorm_momentum_and_biases():
    published, plain = small("wrn-34-10-nuat"), small("wrn-34-10")
    for model, momentum in ((published, 0.9), (plain, 0.1)):
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert model.bn is norms[-1] and model.bn.momentum == momentum
        assert {module.momentum for module in norms[:-1]} == {0.1}
    convolutions = [m for m in published.modules() if isinstance(m, nn.Conv2d)]
    assert all(module.bias is not None for module in convolutions)
    assert all(m.bias is None for m in plain.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("published", "strides"), [(False, (2, 1)), (True, (1, 2))])
def test_stride_of_wide_resnet_blocks(published, strides):
    model = WideResNet(10, 3, depth=16, width=1, nuat_layout=published)
    blocks = list(model.blocks)
    assert len(blocks) == 6
    for place, block in enumerate(blocks):
        expected = strides if place in (2, 4) else (1, 1)
        assert (block.conv1.stride[0], block.conv2.stride[0]) == expected


def test_depth_and_width_of_wide_resnet():
    with torch.device("meta"):
        model = build_model("wrn-34-10", 10, 3)
    assert len(model.blocks) == 15
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 1 + 15 * 2 + 3
    assert [model.blocks[i].conv2.out_channels for i in (0, 5, 10)] == [160, 320, 640]


def test_imagenet_stem():
    model = ResNet(10, width=4, imagenet=True)
    seen = []
    model.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(torch.rand(1, 3, 224, 224))
    assert seen == [(1, 4, 56, 56)]


def test_unknown_settings_are_rejected():
    for text in ("small-cnn(widht=3)", "resnet18(depth=3)", "mnist-net(width=3)"):
        with pytest.raises(nuat.InputError, match=text.split("(")[0]):
            build_model(text, 10, 3)


@pytest.mark.parametrize(
    "text",
    [
        "wrn-34-10(depth=33)",  # a depth is 6 n + 4: this would quietly be 28
        "wrn-34-10(depth=4)",
        "resnet18(width=0)",
        "small-cnn(width=-1)",
        "small-cnn(width=2.5)",
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_invalid_depth_and_width_are_rejected(text):
    with pytest.raises(nuat.InputError, match=r"depth|width"):
        build_model(text, 10, 3)


@pytest.mark.parametrize(
    ("kind", "name", "channels"),
    [
        (SmallCNN, "small-cnn(width=16)", 1),
        (MNISTNet, "mnist-net", 1),
        (TradesMNISTNet, "mnist-net-trades", 1),
        (ResNet, "resnet18", 3),
        (WideResNet, "wrn-34-10-nuat", 3),
    ],
)
def test_parameter_count_in_docstring(kind, name, channels):
    with torch.device("meta"):
        assert f"{parameters(build_model(name, 10, channels)):,} parameters" in kind.__doc__


def test_registered_factory_receives_settings_of_any_type(monkeypatch):
    taken = {}

    def factory(classes, channels, **settings):
        taken.update(settings)
        return nn.Flatten()

    monkeypatch.setitem(nuat.models.model_registry, "own", factory)
    build_model(
        "own(dropout=0.1, seed=0, norm='none', widths=(8, 16), bias=False, shift=-1)", 10, 3
    )
    assert taken == {
        "dropout": 0.1,
        "seed": 0,
        "norm": "none",
        "widths": (8, 16),
        "bias": False,
        "shift": -1,
    }


def test_trades_mnist_net_initialization_and_dropout():
    model = build_model("mnist-net-trades", 10, 1)
    assert not model.eval()(torch.rand(2, 1, 28, 28)).any()
    kinds = [type(module).__name__ for module in model.classifier]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert model.classifier.drop.p == 0.5
    convolutions = [m for m in model.feature_extractor if isinstance(m, nn.Conv2d)]
    spread = [m.weight.std().item() * (m.weight[0].numel() / 2) ** 0.5 for m in convolutions[:2]]
    assert spread == pytest.approx([1, 1], abs=0.15)
    assert not any(m.bias.any() for m in convolutions)


def test_published_trades_mnist_weights_have_the_names_of_the_model():
    layers = {"feature_extractor.conv1": (32, 1, 3, 3), "feature_extractor.conv2": (32, 32, 3, 3)}
    layers |= {"feature_extractor.conv3": (64, 32, 3, 3), "feature_extractor.conv4": (64, 64, 3, 3)}
    layers |= {"classifier.fc1": (200, 1024), "classifier.fc2": (200, 200)}
    layers |= {"classifier.fc3": (10, 200)}
    published = {}
    for name, shape in layers.items():
        published |= {
            f"{name}.weight": torch.randn(shape) / 30,
            f"{name}.bias": torch.randn(shape[0]),
        }
    model = build_model("mnist-net-trades", 10, 1).eval()
    model.load_state_dict(published)
    w, x = published, torch.rand(2, 1, 28, 28)
    z = x
    for i in (1, 2, 3, 4):
        z = nn.functional.conv2d(
            z, *(w[f"feature_extractor.conv{i}.{p}"] for p in ("weight", "bias"))
        )
        z = nn.functional.max_pool2d(z.relu(), 2) if i in (2, 4) else z.relu()
    z = z.reshape(2, -1)
    for i in (1, 2, 3):
        z = z @ w[f"classifier.fc{i}.weight"].T + w[f"classifier.fc{i}.bias"]
        z = z.relu() if i < 3 else z
    assert torch.allclose(model(x), z, atol=1e-5)


# normalization


def test_the_numbers_of_a_normalization_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    for name, (mean, std) in STATISTICS.items():
        row = " | ".join([f"`{name}`", *(", ".join(map(str, each)) for each in (mean, std))])
        assert f"| {row} |" in text


def test_the_numbers_of_a_normalization_are_printed():
    named = build_model("small-cnn(normalize=cifar10)", 10, 3)
    expected = "the first layer normalizes the images, mean (0.4914, 0.4822, 0.4465), std (0.2471"
    for notes in (normalization_notes(named), startup_notes(named)):
        assert expected in notes[0]
    assert normalization_notes(build_model("small-cnn", 10, 3)) == []


@pytest.mark.parametrize("given", [*STATISTICS, "((0.1, 0.2, 0.3), (0.5, 0.6, 1))"])
def test_normalization_is_the_first_layer(given):
    channels = 1 if given == "mnist" else 3
    model = randomize_batchnorm(build_model(f"resnet18(width=2, normalize={given})", 10, channels))
    mean, std = STATISTICS.get(given, ((0.1, 0.2, 0.3), (0.5, 0.6, 1)))
    x = torch.rand(2, channels, 8, 8)
    columns = (torch.tensor(values)[:, None, None] for values in (mean, std))
    by_hand = (x - next(columns)) / next(columns)
    with torch.no_grad():
        assert torch.equal(model(x), model.network(by_hand))
    assert parameters(model) == parameters(model.network)
    assert model.state_dict()["normalize.mean"].flatten().tolist() == pytest.approx(mean)


def test_normalization_is_off_by_default():
    for name in nuat.models.model_registry:
        if name in SIZES:
            assert not hasattr(small(name), "normalize")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cifar1", "did you mean 'cifar10'?"),
        ("mnist", "1 means and 1 standard deviations, but the images have 3 channels"),
        ("3", "normalize is 3, but must be mnist, cifar10"),
        ("(0.5, 0.5)", "normalize is (0.5, 0.5), but must be"),
        ("((0, 0, 0), (1, 0, 1))", "(1, 0, 1), but must be above 0"),
        ("((0, 0, 0), (1, 1))", "3 means and 2 standard deviations"),
        ("'cifar10'", "normalize is 'cifar10', but must be"),
        ("True", "normalize is True, but must be"),
    ],
)
def test_invalid_normalization_is_rejected(given, words):
    with pytest.raises(nuat.InputError) as error:
        build_model(f"small-cnn(normalize={given})", 10, 3)
    assert words in str(error.value)
