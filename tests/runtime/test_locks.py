"""A folder is written by one process at a time."""

import multiprocessing
import os

import pytest

import nuat
from nuat.runtime.locks import lock_folder


def _hold(folder, held, release) -> None:
    with lock_folder(folder):
        held.set()
        release.wait(60)


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    with (
        pytest.raises(nuat.InputError, match=rf"in use by 'process {process.pid} on "),
        lock_folder(tmp_path),
    ):
        pytest.fail("locked twice")
    process.kill()  # the operating system releases the lock
    process.join()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / "lock").read_text()
    assert not list(tmp_path.iterdir())


def test_training_and_evaluation_lock_their_folders(tmp_path):
    options = {"data": "digits", "model": "small-cnn(width=4)", "out": tmp_path / "run"}
    recipe = nuat.get_recipe("nuat", "digits").with_epochs(2)
    run = nuat.fit(recipe, **options, max_time=0)
    with lock_folder(run.path), pytest.raises(nuat.InputError, match="is in use by"):
        nuat.fit(recipe, **options)
    assert nuat.fit(recipe, **options).finished
    model = nuat.load_model(run.path).model
    data = nuat.load_dataset("digits").test
    arguments = (model, data, nuat.Linf(0.1), ["fgsm"])
    out = tmp_path / "evaluation"
    first = nuat.evaluate(*arguments, samples=20, out=out)
    with lock_folder(out, "lock-0"), pytest.raises(nuat.InputError, match="is in use by"):
        nuat.evaluate(*arguments, samples=20, out=out)
    assert nuat.evaluate(*arguments, samples=20, out=out).robust == first.robust
