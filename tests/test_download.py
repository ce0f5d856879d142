"""Downloads from a server that breaks off, stalls, lies, sends wrong bytes, and one that behaves.

The server is a thread of the test on localhost; pauses between tries are cut to nothing.
"""

import hashlib
import http.server
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import download
from freesound_tagging.sounds.download import RETRY, USER_AGENT, download_file

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
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    sent: int | None = None
    stall: bool = False
    length: int | None = None
    spoil: bool = False
    shift: int = 0


@dataclass
class Served:
    """A running server: where it is, what it was asked, and how it will answer."""

    url: str
    answers: list[Answer]
    ranges: list[str | None] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    always: Answer = field(default_factory=Answer)
    release: threading.Event = field(default_factory=threading.Event)


def make_handler(served: Served) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.ranges.append(self.headers["Range"])
            served.agents.append(self.headers["User-Agent"])
            answer = served.answers.pop(0) if served.answers else served.always
            if answer.status:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            start = int(asked[1]) if asked and answer.ranges else 0
            content = bytes(len(CONTENT)) if answer.spoil else CONTENT
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                first = start + answer.shift
                self.send_header(
                    "Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(answer.length or len(body)))
            self.end_headers()
            self.wfile.write(body[: answer.sent])
            if answer.stall:
                self.wfile.flush()
                served.release.wait(20)

        def log_message(self, *_):
            """Keep the test run quiet."""

    return Handler


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Served]]:
    """Return a function that starts a server with the answers to its first requests."""
    monkeypatch.setattr(download, "RETRY", RETRY.new(total=3, backoff_factor=0))
    monkeypatch.setattr(download, "BLOCK", 1000)  # so that what breaks off is known to the byte
    running = []

    def start(*answers: Answer, always: Answer | None = None) -> Served:
        served = Served("", list(answers), always=always or Answer())
        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(served))
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        running.append((served, httpd))
        served.url = f"http://127.0.0.1:{httpd.server_port}/{NAME}?download=1"
        return served

    yield start
    for served, httpd in running:
        served.release.set()
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "downloads" / NAME


def part_of(target: Path) -> Path:
    return target.with_name(f".{NAME}.part")


def assert_done(target: Path) -> None:
    """The file is whole and nothing but the lock lies beside it."""
    assert target.read_bytes() == CONTENT
    assert {file.name for file in target.parent.iterdir()} <= {NAME, f".{NAME}.lock"}


# --- as it should be ---------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_the_server_told_who_asks(serve, target, capfd):
    served = serve()
    assert download_file(served.url, target, md5=MD5) == target
    assert_done(target)
    assert download_file(served.url, target, md5=MD5) == target
    assert served.ranges == [None]
    assert served.agents == [USER_AGENT]
    assert re.match(r"freesound-tagging/\d+\.\d+", USER_AGENT)
    bar = capfd.readouterr().err
    assert "100%" in bar
    assert re.search(r"[kM]?B/s", bar)  # the rate
    assert re.search(r"\[\d\d:\d\d<", bar)  # time gone < time left


def test_no_hash_will_do(serve, target):
    download_file(serve().url, target, progress=False)
    assert_done(target)


def test_a_file_with_another_hash_is_replaced(serve, target):
    target.parent.mkdir()
    target.write_bytes(b"an older version")
    download_file(serve().url, target, md5=MD5)
    assert_done(target)


def test_pauses_grow_and_stay_bearable():
    retries, pauses = RETRY, []
    for _ in range(RETRY.total):
        retries = retries.increment("GET", "url", error=OSError())
        pauses.append(retries.get_backoff_time())
    assert pauses == sorted(pauses)
    assert 60 <= sum(pauses) <= 600
    assert RETRY.retry_after_max <= 600


# --- broken connections ------------------------------------------------------------------------


def test_a_broken_connection_is_taken_up_where_it_ended(serve, target, capfd):
    served = serve(Answer(sent=100_000), Answer(sent=50_000))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert "sounds.zip: the connection broke" in capfd.readouterr().err


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(breaks=st.lists(st.integers(0, 200_000), max_size=3), ranges=st.booleans())
def test_wherever_it_breaks_the_same_bytes_arrive(serve, tmp_path_factory, breaks, ranges):
    target = tmp_path_factory.mktemp("breaks") / NAME
    served = serve(*[Answer(sent=n, ranges=ranges) for n in breaks], always=Answer(ranges=ranges))
    download_file(served.url, target, md5=MD5, progress=False)
    assert_done(target)


def test_a_server_that_ignores_ranges_starts_over(serve, target):
    served = serve(Answer(sent=100_000), always=Answer(ranges=False))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=100000-"]


def test_a_server_that_sends_another_range_starts_over(serve, target):
    served = serve(Answer(sent=100_000), Answer(shift=5))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=100000-", None]


def test_a_server_that_stalls_has_broken_off(serve, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUTS", (5.0, 0.3))
    served = serve(Answer(sent=120_000, stall=True))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=120000-"]


def test_a_server_that_always_breaks_off_is_given_up_in_one_line(serve, target):
    served = serve(Answer(sent=40_000), always=Answer(sent=0))
    with pytest.raises(DataError) as caught:
        download_file(served.url, target, md5=MD5)
    message = str(caught.value)
    assert "\n" not in message
    assert served.url in message
    assert "4 tries in vain" in message
    assert "the 0.0 MB that arrived are kept" in message
    assert f"get {NAME} another way, put it in a folder and set DATA_MIRROR" in message
    assert len(served.ranges) == 4
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:40_000]


def test_tries_are_counted_anew_where_the_file_has_grown(serve, target):
    served = serve(always=Answer(sent=20_000))
    download_file(served.url, target, md5=MD5, progress=False)
    assert_done(target)
    assert len(served.ranges) == 15  # of 300,000 bytes; three more tries alone make four


def test_a_rerun_goes_on_where_a_stopped_run_was(serve, target, monkeypatch, capfd):
    served = serve()

    class PressCtrlC(download.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "tqdm", PressCtrlC)
        with pytest.raises(KeyboardInterrupt):
            download_file(served.url, target, md5=MD5)
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:1000]
    assert "sounds.zip: stopped; run again to go on" in capfd.readouterr().err
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=1000-"]


def test_a_stop_during_verification_costs_no_second_download(serve, target, monkeypatch):
    served = serve()
    with monkeypatch.context() as patch:

        def press_ctrl_c(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(download.pooch, "file_hash", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            download_file(served.url, target, md5=MD5)
    assert not target.exists()
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, "bytes=300000-"]  # answered 416: nothing is missing


def test_without_a_hash_nothing_is_pieced_together(serve, target):
    target.parent.mkdir()
    part_of(target).write_bytes(b"of another version")
    served = serve(Answer(sent=100_000))
    download_file(served.url, target)
    assert_done(target)
    assert served.ranges == [None, None]


# --- what is left over from before -------------------------------------------------------------


def test_a_partial_file_that_is_too_long_is_dropped(serve, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    served = serve()
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == ["bytes=300004-", None]


def test_a_partial_file_of_something_else_is_noticed(serve, target, capfd):
    target.parent.mkdir()
    part_of(target).write_bytes(bytes(1000))
    served = serve()
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == ["bytes=1000-", None]
    assert "sounds.zip: its md5 is " in capfd.readouterr().err


# --- lies and wrong bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_a_length_that_is_too_long(serve, target, ranges):
    """The connection ends early; with ranges the server then says that nothing is missing."""
    lie = Answer(length=len(CONTENT) + 500, ranges=ranges)
    served = serve(lie, always=Answer(ranges=ranges))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert len(served.ranges) == 2


def test_a_length_that_is_too_short(serve, target):
    """It looks whole until the hash is compared."""
    served = serve(Answer(length=1000))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, None]


def test_a_server_that_keeps_lying_is_given_up(serve, target):
    served = serve(always=Answer(length=len(CONTENT) + 500, ranges=False))
    with pytest.raises(DataError, match="4 tries in vain, the last: the connection broke"):
        download_file(served.url, target, md5=MD5)
    assert not target.exists()


def test_wrong_bytes_once(serve, target):
    served = serve(Answer(spoil=True))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert served.ranges == [None, None]


def test_wrong_bytes_twice(serve, target):
    served = serve(always=Answer(spoil=True))
    with pytest.raises(DataError) as caught:
        download_file(served.url, target, md5=MD5)
    message = str(caught.value)
    assert f"its md5 is {hashlib.md5(bytes(len(CONTENT))).hexdigest()}, not {MD5}" in message
    assert "DATA_MIRROR" in message
    assert "\n" not in message
    assert served.ranges == [None, None]
    assert not target.exists()
    assert not part_of(target).exists()


# --- answers other than the file ---------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(serve, target, status):
    served = serve(Answer(status=status), Answer(status=status))
    download_file(served.url, target, md5=MD5)
    assert_done(target)
    assert len(served.ranges) == 3


def test_a_server_that_stays_busy_is_given_up(serve, target):
    served = serve(always=Answer(status=503))
    with pytest.raises(DataError, match=r"too many 503 error responses.*set DATA_MIRROR"):
        download_file(served.url, target, md5=MD5)
    assert len(served.ranges) == 4


def test_the_pause_that_a_server_asks_for_is_kept(serve, target, monkeypatch):
    slept = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    served = serve(
        Answer(status=503, headers={"Retry-After": "7"}),
        Answer(status=503, headers={"Retry-After": "99999"}),
    )
    download_file(served.url, target, md5=MD5)
    assert slept == [7, 600]


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden")])
def test_a_server_without_the_file_is_asked_once(serve, target, status, reason):
    served = serve(always=Answer(status=status))
    with pytest.raises(DataError, match=rf"{status} Client Error: {reason}.*DATA_MIRROR"):
        download_file(served.url, target, md5=MD5)
    assert len(served.ranges) == 1
    assert not target.exists()


def test_no_server(serve, target):
    url = "http://127.0.0.1:9/sounds.zip"
    serve()
    with pytest.raises(DataError, match=r"refused.*set DATA_MIRROR"):
        download_file(url, target, md5=MD5)


# --- the disk ----------------------------------------------------------------------------------


def disk_with(free: int) -> Callable:
    return lambda _: SimpleNamespace(free=free)


def test_room_is_checked_before_anything_arrives(serve, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_with(200_000))
    served = serve()
    with pytest.raises(DataError) as caught:
        download_file(served.url, target, md5=MD5)
    message = str(caught.value)
    for part in ("0.3 MB are needed", "0.2 MB are free", "WORK_FOLDER", str(target.parent)):
        assert part in message
    assert not target.exists()
    assert not part_of(target).exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_what_has_arrived_needs_no_room_again(serve, target, monkeypatch, ranges):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:150_000])
    monkeypatch.setattr(shutil, "disk_usage", disk_with(200_000))
    download_file(serve(always=Answer(ranges=ranges)).url, target, md5=MD5)
    assert_done(target)


def test_a_disk_that_fills_up_keeps_what_has_arrived(serve, target, monkeypatch):
    class FullDisk(download.tqdm):
        def update(self, n=1):
            if self.n + n > 100_000:
                raise OSError(28, "No space left on device")
            super().update(n)

    monkeypatch.setattr(download, "tqdm", FullDisk)
    with pytest.raises(DataError, match=r"No space left.*WORK_FOLDER.*is kept"):
        download_file(serve().url, target, md5=MD5)
    assert part_of(target).read_bytes() == CONTENT[:101_000]
    assert not target.exists()


def test_a_folder_that_cannot_be_written_is_named(serve, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file.sounds\.zip: cannot be written"):
        download_file(serve().url, tmp_path / "file" / NAME)


# --- two at once -------------------------------------------------------------------------------


def test_two_runs_at_once_download_once(serve, target):
    served = serve(Answer(sent=100_000))
    faults = []

    def run():
        try:
            download_file(served.url, target, md5=MD5, progress=False)
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert_done(target)
    assert served.ranges == [None, "bytes=100000-"]
