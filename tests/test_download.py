"""Downloads from a server that breaks off, stalls, sends wrong bytes, and one that behaves.

The server is a thread of the test on localhost; pauses between tries are cut to nothing.
"""

import hashlib
import http.server
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives
from freesound_tagging.sounds.archives import download_file

CONTENT = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
NAME = "sounds.zip"


@dataclass
class Answer:
    """How the server treats one request; the default is as it should be.

    ``sent``: bytes of the body before the connection closes; ``stall``: it stays open instead;
    ``length``: what Content-Length says, where that is a lie; ``spoil``: bytes are wrong.
    """

    status: int | None = None
    ranges: bool = True
    sent: int | None = None
    stall: bool = False
    length: int | None = None
    spoil: bool = False


class Server(http.server.ThreadingHTTPServer):
    """Answers as it is told to, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: tuple[Answer, ...], always: Answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.always, self.ranges, self.agents = list(answers), always, [], []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/{NAME}?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        server.agents.append(self.headers["User-Agent"])
        answer = server.answers.pop(0) if server.answers else server.always
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(asked[1]) if asked and answer.ranges else 0
        body = (bytes(len(CONTENT)) if answer.spoil else CONTENT)[start:]
        self.send_response(answer.status or (200 if not start else 206 if body else 416))
        body = b"" if answer.status else body
        self.send_header("Content-Length", str(answer.length or len(body)))
        self.end_headers()
        self.wfile.write(body[: answer.sent])
        if answer.stall:
            self.wfile.flush()
            server.release.wait(20)

    def log_message(self, *_):
        """Keep the test run quiet."""


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server with the answers to its first requests."""
    monkeypatch.setattr(archives, "TRIES", 4)
    monkeypatch.setattr(archives, "PAUSE", 0)
    monkeypatch.setattr(archives, "BLOCK", 1000)  # so that what breaks off is known to the byte
    running = []

    def start(*answers: Answer, always: Answer | None = None) -> Server:
        running.append(Server(answers, always or Answer()))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "downloads" / NAME


def assert_done(target: Path) -> None:
    """The file is whole and nothing lies beside it."""
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == [NAME]


def test_a_file_is_fetched_once_and_the_server_told_who_asks(serve, target):
    served = serve()
    for _ in range(2):
        assert download_file(served.url, target, md5=MD5) == target
        assert_done(target)
    assert served.ranges == ["bytes=0-"]
    assert re.match(r"freesound-tagging/\d+\.\d+", served.agents[0])
    target.write_bytes(b"an older version")
    download_file(served.url, target, md5=MD5)
    assert_done(target)


@pytest.mark.parametrize(
    ("first", "always", "asked"),
    [
        (Answer(sent=100_000), Answer(), "bytes=100000-"),
        (Answer(sent=100_000), Answer(ranges=False), "bytes=100000-"),
        (Answer(sent=120_000, stall=True), Answer(), "bytes=120000-"),
        (Answer(length=len(CONTENT) + 500), Answer(), "bytes=300000-"),
        (Answer(status=503), Answer(), "bytes=0-"),
        (Answer(status=429), Answer(), "bytes=0-"),
    ],
)
def test_servers_that_fail_once(serve, target, monkeypatch, first, always, asked):
    monkeypatch.setattr(archives, "TIMEOUTS", (5.0, 0.3))
    served = serve(first, always=always)
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == ["bytes=0-", asked]


@pytest.mark.parametrize(
    ("always", "message", "n"),
    [
        (Answer(sent=0), "could not be downloaded", 5),
        (Answer(length=len(CONTENT) + 500, ranges=False), "could not be downloaded", 6),
        (Answer(spoil=True), f"its md5 is .*, not {MD5}", 1),
        (Answer(length=1000), f"its md5 is .*, not {MD5}", 1),  # it looks whole
        (Answer(status=503), "the server answers 503", 5),
        (Answer(status=404), "404 Client Error: Not Found", 1),
    ],
)
def test_servers_that_keep_failing_are_given_up_in_one_line(serve, target, always, message, n):
    served = serve(always=always)
    with pytest.raises(DataError, match=f"{message}.* set DATA_MIRROR") as caught:
        download_file(served.url, target, md5=MD5)
    assert "\n" not in str(caught.value)
    assert served.url in str(caught.value)
    assert not target.exists()
    assert len(served.ranges) == n
    served.always = Answer()
    download_file(served.url, target, md5=MD5)
    assert_done(target)


def test_tries_are_counted_anew_where_the_file_has_grown(serve, target):
    served = serve(always=Answer(sent=20_000))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert len(served.ranges) == 15  # of 300,000 bytes; four tries in a row are all there are


def test_a_rerun_goes_on_where_a_stopped_run_was(serve, target, monkeypatch):
    served = serve()

    def press_ctrl_c(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives.tqdm, "update", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            download_file(served.url, target, md5=MD5)
    assert not target.exists()
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == ["bytes=0-", "bytes=1000-"]


def test_room_is_checked_for_what_is_to_arrive(serve, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    served = serve()
    with pytest.raises(DataError, match=r"0\.3 MB are needed, 0\.2 MB are free"):
        download_file(served.url, target, md5=MD5)
    assert not target.exists()
