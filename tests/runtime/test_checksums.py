"""A checksum covers every value, and neither order, container nor device of them."""

import json

import pytest
import torch

import nuat
from nuat.runtime.checksums import checksum, with_checksum, without_checksum

STATE = {
    "epoch": 3,
    "loss": 0.25,
    "nothing": None,
    "name": "ä",
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True), "c": torch.empty(0)},
    "optimizer": {0: {"buffer": torch.ones(3, dtype=torch.bfloat16)}, "groups": [(0.1, 0.9)]},
}


def test_every_change_changes_it():
    seen = {checksum(STATE)}
    for path, value in {
        ("epoch",): 4,
        ("loss",): 0.25000000000000006,
        ("nothing",): 0,
        ("name",): "a",
        ("weights", "a"): torch.arange(6.0).reshape(3, 2),
        ("weights", "b"): torch.tensor(False),
        ("weights", "c"): torch.empty(0, 1),
        ("optimizer", 0): {"buffer": torch.ones(3)},
        ("optimizer", "groups"): [(0.1, 0.8)],
        ("more",): [],
    }.items():
        changed = {name: dict(v) if isinstance(v, dict) else v for name, v in STATE.items()}
        part = changed if len(path) == 1 else changed[path[0]]
        part[path[-1]] = value
        seen.add(checksum(changed))
    assert len(seen) == 11


def test_one_bit_of_a_tensor_changes_it():
    x = torch.rand(100)
    before = checksum({"x": x})
    x.view(torch.uint8)[123] ^= 1
    assert checksum({"x": x}) != before


def test_order_and_json_do_not_change_it():
    fields = {"b": (1, 2.5, float("inf")), "a": {1: "x"}}
    again = json.loads(json.dumps(with_checksum(fields)))
    assert without_checksum(again, "f") == {"b": [1, 2.5, float("inf")], "a": {"1": "x"}}
    assert checksum(dict(reversed(STATE.items()))) == checksum(STATE)
    x = torch.rand(4, 3)
    assert checksum(x.t().contiguous().t()) == checksum(x)


@pytest.mark.parametrize("change", [{"epoch": 2}, {"checksum": "0" * 16}, {"checksum": None}])
def test_a_wrong_checksum_is_refused(change):
    with pytest.raises(nuat.InputError, match=r"line 3 of m\.jsonl is damaged"):
        without_checksum(with_checksum({"epoch": 1}) | change, "line 3 of m.jsonl")
