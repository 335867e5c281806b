"""`nuat report --serve`: the page on the loopback address, made anew for every request."""

import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection

from nuat.report.page import render_page
from nuat.report.serve import HOST, page_server
from tests.report.test_report import runs, trained  # noqa: F401


@contextmanager
def serving(render):
    with page_server(render) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path="/"):
    connection = HTTPConnection(HOST, server.server_port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_every_request_shows_the_run_as_it_is_now(runs):  # noqa: F811
    with serving(lambda: render_page(runs)) as server:
        assert server.server_address[0] == "127.0.0.1"
        status, headers, before = get(server)
        assert status == 200 and headers["Refresh"] == "10" and before == render_page(runs)
        runs[2].log({**runs[2].metrics[-1], "epoch": 3, "loss": 1.0})
        _, _, after = get(server)
        assert after == render_page(runs) != before
        assert get(server, "/etc/passwd")[0] == get(server, "/../x")[0] == 404


def test_an_error_is_shown_and_the_server_goes_on():
    answers = iter(["<p>page</p>"])
    with serving(lambda: next(answers)) as server:
        assert get(server)[2] == "<p>page</p>"
        status, headers, text = get(server)
        assert status == 503 and "StopIteration" in text
        assert headers["Content-Type"].startswith("text/plain")


def test_a_connection_that_says_nothing_holds_nobody_up():
    with serving(lambda: "page") as server:
        silent = socket.create_connection((HOST, server.server_port))
        assert get(server)[2] == "page"
        silent.close()


def test_the_command_refuses_a_folder_that_does_not_exist(call, tmp_path):
    outcome = call(f"report {tmp_path / 'none'} --serve --port 0")
    assert outcome.status == 2 and "does not exist" in outcome.err
