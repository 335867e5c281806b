"""The examples in docstrings do what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import nuat
from nuat.attacks.registry import attack_registry
from nuat.data.registry import dataset_registry
from nuat.models.registry import model_registry
from nuat.recipes import registry

MODULES = [
    module.name
    for module in pkgutil.walk_packages(nuat.__path__, "nuat.")
    if not module.name.endswith("__main__")
]
WITHOUT = {"diagnose", "from_pretrained", "push_to_hub", "save_pretrained", "to_onnx"}
"""Functions that need an extra, the network, or a trained run."""


def examples(name):
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(name), extraglobs={"nuat": nuat, "torch": torch})
    return [test for test in found if test.examples]


@pytest.fixture
def _registered_for_one_test(monkeypatch):
    monkeypatch.setattr(registry, "_table", dict(registry._table))
    registries = (attack_registry, dataset_registry, model_registry)
    before = [set(known) for known in registries]
    yield
    for known, names in zip(registries, before, strict=True):
        for name in set(known) - names:
            del known[name]


@pytest.mark.usefixtures("_registered_for_one_test")
@pytest.mark.parametrize("name", [name for name in MODULES if examples(name)])
def test_examples_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in examples(name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_public_function_has_an_example():
    functions = [name for name in nuat.__all__ if inspect.isfunction(getattr(nuat, name))]
    assert {name for name in functions if ">>> " not in getattr(nuat, name).__doc__} == WITHOUT
