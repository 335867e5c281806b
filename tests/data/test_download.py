"""Downloads from a local server: verified, resumed, complete or not at all."""

import hashlib
import io
import shlex
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import nuat
from nuat import InputError, cli
from nuat.data import download as download_module
from nuat.data.download import download
from nuat.data.paths import DatasetSource, RemoteFile

FILES = {"a": bytes(range(256)) * 2000, "b": b"labels" * 10}


def packed():
    """An archive of toys/a and toys/b."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(f"toys/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


ARCHIVE = packed()


class Server(ThreadingHTTPServer):
    """Serves `content`; `cut` truncates the first response; `asked` records the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges, self.asked = {}, None, True, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path not in server.content:
            return self.send_error(404)
        content, start = server.content[self.path], 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut, server.cut = server.cut, None
        self.wfile.write(content[start:cut])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        server.content["/toys.tar.gz"] = ARCHIVE
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        name = "toys.tar.gz"
        urls = (f"{server.url}/gone/{name}", f"{server.url}/{name}")
        file = RemoteFile(name, hashlib.md5(ARCHIVE).hexdigest(), urls)
        toys = DatasetSource("toys", "toys", "the toys", "http://toys.example", (file,))
        single = tuple(
            RemoteFile(name, hashlib.md5(content).hexdigest(), (f"{server.url}/{name}",))
            for name, content in FILES.items()
        )
        server.content |= {f"/{name}": content for name, content in FILES.items()}
        parts = DatasetSource("parts", "raw", "the parts", "http://parts.example", single)
        monkeypatch.setattr(download_module, "SOURCES", {"toys": toys, "parts": parts})
        yield server
        server.shutdown()
        thread.join()


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_archive_is_fetched_from_the_first_address_that_has_it(server, tmp_path):
    place = download("toys", tmp_path)
    assert place == tmp_path / "toys" / "toys"
    assert {name: (place / name).read_bytes() for name in FILES} == FILES
    assert list_files(tmp_path) == ["toys/toys/a", "toys/toys/b"], "no partial file"
    assert server.asked == [("/gone/toys.tar.gz", None), ("/toys.tar.gz", None)]
    assert download("toys", tmp_path) == place and len(server.asked) == 2, "it is there"


def test_single_files(server, tmp_path):
    place = download("parts", tmp_path)
    assert list_files(place) == ["a", "b"] and (place / "a").read_bytes() == FILES["a"]
    (place / "b").unlink()
    download("parts", tmp_path)
    assert [path for path, _ in server.asked] == ["/a", "/b", "/b"], "only what is missing"


def test_an_interrupted_download_resumes(server, tmp_path):
    server.cut = 1000
    with pytest.raises(InputError, match=r"connection ended after 1,000 of .*Run the same command"):
        download("toys", tmp_path)
    assert list_files(tmp_path) == ["toys/toys.tar.gz.partial"]
    place = download("toys", tmp_path)
    assert server.asked[-1] == ("/toys.tar.gz", "bytes=1000-")
    assert (place / "a").read_bytes() == FILES["a"] and len(list_files(tmp_path)) == 2


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.cut, server.ranges = 1000, False
    with pytest.raises(InputError):
        download("toys", tmp_path)
    assert list_files(download("toys", tmp_path)) == ["a", "b"]


def test_a_complete_partial_file_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "toys.tar.gz.partial").write_bytes(ARCHIVE)
    assert list_files(download("toys", tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("off", [0, -1, 5000])
def test_a_wrong_byte_leaves_no_file(server, tmp_path, off):
    content = bytearray(ARCHIVE)
    content[min(off, len(content) - 1)] ^= 1
    server.content["/toys.tar.gz"] = bytes(content)
    with pytest.raises(InputError, match=r"not the official file \(its MD5.*by hand"):
        download("toys", tmp_path)
    assert list_files(tmp_path) == []


def test_without_a_network_the_error_names_the_home_page(server, tmp_path):
    server.content.clear()
    with pytest.raises(
        InputError, match=r"404.*get the toys from http://toys.example by hand and unpack it"
    ):
        download("toys", tmp_path / "data")
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=r"unknown data set to download 'toy'; did you mean 'toys'"
    ):
        download("toy", tmp_path)


def test_an_archive_cannot_write_outside_its_folder(server, tmp_path, monkeypatch):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO(b""))
    server.content["/toys.tar.gz"] = target.getvalue()
    md5 = hashlib.md5(target.getvalue()).hexdigest()
    file = RemoteFile("toys.tar.gz", md5, (f"{server.url}/toys.tar.gz",))
    monkeypatch.setitem(
        download_module.SOURCES, "toys", DatasetSource("toys", "toys", "", "", (file,))
    )
    with pytest.raises(tarfile.OutsideDestinationError):
        download("toys", tmp_path)
    assert list_files(tmp_path) == ["toys/toys.tar.gz"]


def test_from_the_command_line(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NUAT_DATA", "elsewhere")
    monkeypatch.setattr(
        nuat.data, "load_dataset", lambda name: {"train": "12", "val": "", "test": ""}
    )
    line = f"nuat download toys --data-dir {tmp_path}/new"
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, capsys.readouterr().err
    assert f"toys is in {tmp_path}/new/toys/toys: 2 train, 0 val" in capsys.readouterr().out
