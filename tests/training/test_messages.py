"""What a training run prints besides its epochs."""

from dataclasses import replace

import torch

import nuat
from nuat.data import Splits, as_dataset, load_dataset


def shuffled_labels() -> Splits:
    digits = load_dataset("digits")
    generator = torch.Generator().manual_seed(0)
    parts = [
        as_dataset((part.x[:200], part.y[:200][torch.randperm(200, generator=generator)]))
        for part in (digits.train, digits.val, digits.test)
    ]
    return Splits(*parts, digits.classes, "shuffled")


def train(data, out, epochs, capsys):
    recipe = replace(nuat.get_recipe("normal", "digits"), model="small-cnn(width=4)")
    nuat.fit(recipe.with_epochs(epochs), data=data, out=out)
    return capsys.readouterr().out


def test_a_network_that_still_guesses_is_noted_once(tmp_path, capsys):
    out = train(shuffled_labels(), tmp_path / "guessing", 6, capsys)
    assert out.count("NOTE: after a third of the epochs clean accuracy is") == 1
    lines = out.splitlines()
    note = next(i for i, line in enumerate(lines) if line.startswith("NOTE"))
    assert lines[note - 1].startswith("epoch 2/6") and "guessing has 10.0%" in lines[note]
    assert "NOTE" not in train(shuffled_labels(), tmp_path / "short", 2, capsys)
    assert "NOTE" not in train(load_dataset("digits"), tmp_path / "learning", 3, capsys)
