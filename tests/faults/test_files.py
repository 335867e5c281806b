"""Writing and reading files in folders of others: links, FIFOs, sockets, devices, full disks."""

import errno
import os
import socket
import stat
import subprocess
import sys

import pytest

from nuat.errors import InputError
from nuat.runtime.files import TEMPORARY_NAME, atomic_write, read_text, remove_leftovers

LEFTOVER = "page.html.0123456789abcdef.partial"


def write(path):
    path.write_text("new")


def test_the_new_file_has_the_rights_of_any_file(tmp_path):
    atomic_write(tmp_path / "a", write)
    write(tmp_path / "b")
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == os.stat(tmp_path / "b").st_mode & 0o777


@pytest.mark.parametrize("name", ["page.html", "a" * 255, "\U0001f600" * 60])
def test_temporary_names_are_new_ones_and_nothing_stays(tmp_path, name):
    seen = set()
    for _ in range(2):
        atomic_write(tmp_path / name, lambda path: (seen.add(path.name), write(path)))
    assert len(seen) == 2 and all(map(TEMPORARY_NAME.fullmatch, seen))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_are_replaced_and_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("years")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("page.html", "page.html.partial", LEFTOVER):
        (folder / name).symlink_to(precious)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    atomic_write(folder / "page.html", write)
    atomic_write(folder / "dangling", write)
    assert precious.read_text() == "years" and not (tmp_path / "nowhere").exists()
    assert (folder / "page.html").read_text() == (folder / "dangling").read_text() == "new"
    assert not (folder / "page.html").is_symlink()


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a path of a socket is at most 107 bytes long


def make_link_to_fifo(path):
    os.mkfifo(path.with_name("target"))
    path.symlink_to("target")


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_link_to_fifo, os.mkdir])
def test_what_is_no_file_is_neither_replaced_nor_waited_for(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x"
    make(path)
    before = os.lstat(path).st_mode, sorted(os.listdir())
    for use in (lambda: atomic_write(path, write), lambda: read_text(path)):
        with pytest.raises(InputError, match=r"x is a (FIFO|socket|folder), but must be a file"):
            use()
    assert (os.lstat(path).st_mode, sorted(os.listdir())) == before


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_a_device_is_refused(tmp_path, monkeypatch, kind):
    (tmp_path / "x").write_text("old")
    with monkeypatch.context() as pretending:
        pretending.setattr(os, "stat", lambda path, **_: os.stat_result((kind | 0o666, *range(9))))
        with pytest.raises(InputError, match="x is a device, but must be a file"):
            atomic_write(tmp_path / "x", write)
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, number, step):
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail(*_):
        raise OSError(number, os.strerror(number), "page.html.1234.partial")

    def half(path):
        path.write_text("ne")
        if step == "write":
            fail()

    with monkeypatch.context() as failing:
        if step != "write":
            failing.setattr(os, step, fail)
        with pytest.raises(OSError, match=r"page.html cannot be written: ") as caught:
            atomic_write(target, half)
    assert os.strerror(number) in str(caught.value) and "Errno" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert target.read_text() == "old"


def test_a_folder_that_is_gone_is_one_clear_error(tmp_path):
    with pytest.raises(OSError, match=r"gone/page.html cannot be written: No such file"):
        atomic_write(tmp_path / "gone" / "page.html", write)


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    events, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("rename"), replace(*a)))

    def synced(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("folder" if is_folder else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    atomic_write(tmp_path / "x", write)
    assert events == ["file", "rename", "folder"]


def test_temporary_files_of_a_killed_process_are_removed_by_the_next_write(tmp_path):
    code = (
        "import os, pathlib, signal; from nuat.runtime.files import atomic_write\n"
        "def write(path): path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic_write(pathlib.Path('page.html'), write)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert killed.returncode < 0 and len(list(tmp_path.iterdir())) == 1
    others = ["other.html.0123456789abcdef.partial", "page.html.partial", "download.partial"]
    for name in others:
        (tmp_path / name).write_text("of others")
    atomic_write(tmp_path / "page.html", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["page.html", *others])
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["page.html", *others[1:]])


def test_a_temporary_file_that_is_being_written_stays(tmp_path):
    def write_two(path):
        path.write_text("first")
        atomic_write(tmp_path / "x", write)
        remove_leftovers(tmp_path)
        assert path.read_text() == "first"

    atomic_write(tmp_path / "x", write_two)
    assert (tmp_path / "x").read_text() == "first"
