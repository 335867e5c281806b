"""What makes an evaluation this one: all images, all labels, and the function of the model."""

import numpy
import pytest
import torch
from torch import nn

import nuat
from nuat.data.hashing import combine_hashes, hash_images
from nuat.errors import InputError
from nuat.evaluation.probe import probe_model, probes_differ

BALL = nuat.Linf(0.1)


def images(count=70):
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, (x.flatten(1) @ weights()).argmax(1)


def weights():
    return torch.randn(36, 4, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """The logits of `weights`, after `change`."""

    def __init__(self, change=lambda x: x, persistent=True):
        super().__init__()
        self.change = change
        self.register_buffer("matrix", weights(), persistent=persistent)

    def forward(self, x):
        return self.change(x).flatten(1) @ self.matrix


class NonPersistent(Linear):
    def __init__(self, scale=1.0):
        super().__init__(persistent=False)
        self.matrix *= scale


class WithoutParameters(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, x):
        return x.flatten(1) @ weights()[:, self.columns]


class Forked(nn.Module):
    """Drops inputs in eval mode too."""

    def __init__(self, p):
        super().__init__()
        self.net, self.p = Linear(), p

    def forward(self, x):
        return self.net(nn.functional.dropout(x, self.p, training=True))


def evaluate(model, data, out, attacks=("pgd-2",)):
    return nuat.evaluate(model, data, BALL, list(attacks), out=out)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Linear(), Linear(lambda x: x * 0.5)),
        (Linear(), Linear(lambda x: (x * 4).round() / 4)),
        (NonPersistent(), NonPersistent(2.0)),
        (WithoutParameters([0, 1, 2, 3]), WithoutParameters([1, 0, 2, 3])),
        (Forked(0.1), Forked(0.5)),
    ],
    ids=["attribute", "quantized", "buffer", "no parameters", "dropout"],
)
def test_another_function_of_the_same_weights_is_refused(first, second, tmp_path):
    data = images()
    evaluate(first, data, tmp_path)
    evaluate(first, data, tmp_path)
    with pytest.raises(InputError, match="logits of the model for the same images"):
        evaluate(second, data, tmp_path)


def test_dropout_counts_if_an_attack_runs_in_train_mode(tmp_path):
    data = images()
    plain = nn.Sequential(nn.Dropout(0.1), Linear()), nn.Sequential(nn.Dropout(0.6), Linear())
    attacks = ["pgd-2(train_mode=True)"]
    evaluate(plain[0].eval(), data, tmp_path, attacks)
    with pytest.raises(InputError, match="model_probe"):
        evaluate(plain[1].eval(), data, tmp_path, attacks)


def test_an_edited_factory_is_refused(tmp_path):
    text = (
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(36, 4)\n"
        "        torch.nn.init.eye_(self.weight)\n"
        "    def forward(self, x): return super().forward({images}.flatten(1))\n"
    )

    def build(images):  # as an import of the file before and after the edit
        scope = {}
        exec(text.format(images=images), scope)
        torch.manual_seed(0)
        return scope["Net"]()

    for _ in range(2):
        evaluate(build("x"), images(), tmp_path / "out")
    with pytest.raises(InputError, match="model_probe"):
        evaluate(build("(1 - x)"), images(), tmp_path / "out")


@pytest.mark.parametrize("changed", [0, 40, 69])
@pytest.mark.parametrize("what", ["pixel", "label"])
def test_any_changed_image_or_label_is_refused(changed, what, tmp_path):
    x, y = images()
    evaluate(Linear(), (x, y), tmp_path)
    x, y = x.clone(), y.clone()
    if what == "pixel":
        x[changed, 0, 3, 3] = 1 - x[changed, 0, 3, 3]
    else:
        y[changed] = (y[changed] + 1) % 4
    with pytest.raises(InputError, match="content_hash"):
        evaluate(Linear(), (x, y), tmp_path)


def test_an_iterable_of_other_images_is_refused(tmp_path):
    x, y = images()
    evaluate(Linear(), zip(x.split(9), y.split(9), strict=True), tmp_path)
    evaluate(Linear(), zip(x.split(20), y.split(20), strict=True), tmp_path)
    with pytest.raises(InputError, match="content_hash"):
        evaluate(Linear(), zip(x.flip(3).split(9), y.split(9), strict=True), tmp_path)


def test_the_hash_ignores_batches_and_the_type_of_pixels():
    x = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    y = torch.arange(6)
    bytes_, floats = (combine_hashes(hash_images(part, y)) for part in (x.float() / 255, x / 255))
    assert bytes_ == floats
    parts = zip((x / 255).split(4), y.split(4), strict=True)
    assert combine_hashes(each for part in parts for each in hash_images(*part)) == floats
    wide = (x / 255).reshape(6, 1, 1, 4)
    assert combine_hashes(hash_images(wide, y)) != floats


def test_another_device_or_thread_count_is_no_other_model():
    x = images()[0]
    values = probe_model(Linear(), [x])
    assert not probes_differ(values, [value * (1 + 1e-5) for value in values])
    assert probes_differ(values, [value * 1.1 for value in values])
    assert probes_differ(values, values[1:]) and probes_differ(values, "1")


def test_a_model_with_a_generator_of_its_own_can_be_resumed(tmp_path):
    class Noisy(Linear):
        generator = numpy.random.default_rng(0)

        def forward(self, x):
            return super().forward(x) + float(self.generator.normal())

    model = Noisy()
    for _ in range(2):
        evaluate(model, images(), tmp_path)
