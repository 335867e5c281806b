"""The version numbers in the files of a run folder, and metadata read without tensors."""

import json

import pytest
import safetensors.torch
import torch

import nuat
from nuat.checkpoints import Run, read_metadata, read_weights, weights_io, write_weights
from nuat.runtime.checksums import with_checksum

CONFIG = {"recipe": {"epochs": 1}, "data": {"name": "noise"}, "model": "small-cnn", "seed": 0}
WEIGHTS = {"weight": torch.arange(3.0)}


def edit_json(path, **changes):
    fields = json.loads(path.read_text()) | changes
    del fields["checksum"]
    path.write_text(json.dumps(with_checksum(fields)) + "\n")


def test_every_file_has_a_version_that_readers_do_not_see(tmp_path):
    run = Run.start(tmp_path / "run", CONFIG)
    run.log({"epoch": 1})
    run.save_checkpoint({"epoch": 1})
    run.save_weights("model", WEIGHTS, {"model": "small-cnn"})
    assert json.loads((run.path / "config.json").read_text())["format_version"] == 2
    assert json.loads((run.path / "metrics.jsonl").read_text())["format_version"] == 2
    checkpoint = torch.load(run.path / "checkpoint.pt", weights_only=True)
    assert checkpoint["format_version"] == 2
    with safetensors.safe_open(run.path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert len(metadata.pop("checksum")) == 16
    assert metadata == {"format": "pt", "format_version": "2", "model": "small-cnn"}
    assert run.metrics == [{"epoch": 1}]
    assert run.load_checkpoint(torch.device("cpu")) == {"epoch": 1}
    assert read_metadata(run.path) == {"model": "small-cnn"}
    assert Run.start(run.path, CONFIG) == run


def test_other_versions_are_rejected(tmp_path):
    run = Run.start(tmp_path / "run", CONFIG)
    run.log({"epoch": 1})
    edit_json(run.path / "metrics.jsonl", format_version=3)
    with pytest.raises(nuat.InputError, match=r"metrics\.jsonl has format_version 3, but this"):
        _ = run.metrics
    edit_json(run.path / "config.json", format_version=3)
    with pytest.raises(nuat.InputError, match=r"config\.json has format_version 3, but this"):
        Run.start(run.path, CONFIG)
    torch.save({"epoch": 1}, run.path / "checkpoint.pt")
    with pytest.raises(nuat.InputError, match=r"checkpoint\.pt has format_version None"):
        run.load_checkpoint(torch.device("cpu"))
    file = tmp_path / "new.safetensors"
    safetensors.torch.save_file(WEIGHTS, file, metadata={"format_version": "3"})
    with pytest.raises(nuat.InputError, match=r"new\.safetensors has format_version 3"):
        read_weights(file)


def test_weights_of_other_programs_need_no_version(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    weights, metadata = read_weights(tmp_path / "a.safetensors")
    assert metadata == {} and torch.equal(weights["weight"], WEIGHTS["weight"])


def test_read_metadata_loads_no_tensors(tmp_path, monkeypatch):
    write_weights(tmp_path / "a.safetensors", WEIGHTS, {"data": "digits"})
    torch.save(WEIGHTS, tmp_path / "a.pt")
    monkeypatch.setattr(weights_io, "load_file", None)
    monkeypatch.setattr(torch, "load", None)
    assert read_metadata(tmp_path / "a.safetensors") == {"data": "digits"}
    assert read_metadata(tmp_path / "a.pt") == {} == read_metadata("birds:make")


def test_restore_metrics_writes_what_the_checkpoint_holds(tmp_path):
    run = Run.start(tmp_path / "run", CONFIG)
    for epoch in (1, 2, 3):
        run.log({"epoch": epoch})
    run.restore_metrics([{"epoch": 1}, {"epoch": 2}])
    assert run.metrics == [{"epoch": 1}, {"epoch": 2}]
    file = run.path / "metrics.jsonl"
    for content in (b"<html>\n", b"\xff\xfe\n", b"null\n", b"[]\n", b'{"epoch": 1}\n', b""):
        file.write_bytes(content)
        run.restore_metrics([{"epoch": 1}])
        assert run.metrics == [{"epoch": 1}]
    file.unlink()
    run.restore_metrics([])
    assert run.metrics == [] and not file.exists()
