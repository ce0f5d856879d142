"""The page: what it answers, and in a real browser that it does, keeps nothing, asks nobody."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile as sf
from test_tagger import RATE, sound, write_model

from freesound_tagging import cli, page
from freesound_tagging.learning.tagger import Tagger

HOSTILE = ["<b>a</b>", "$x^2$ _b_", "${7*7} {{7*7}}", "# d\n\n**e**"]
"""Labels that stand on the page as they are."""

PATIENCE = 180
"""Seconds that a busy machine may take for an answer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "mine" / "smoke", classes=HOSTILE)


# --- what it answers ---------------------------------------------------------------------------


def test_a_sound_gets_three_bars_a_picture_and_a_player_and_is_not_kept(model, tmp_path):
    sf.write(tmp_path / "tone.wav", sound(1.5), RATE)
    said = page.answer(str(tmp_path / "tone.wav"), [Tagger(model), Tagger(model, "hires_q2")])
    assert said.count("<meter") == 6 and said.count("heard best at") == 6
    assert said.count('<img src="data:image/png') == 2 and said.count("<audio") == 1
    assert "<b>" not in said and said.count("&lt;b&gt;a&lt;/b&gt;") >= 1
    assert not (tmp_path / "tone.wav").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("<b>junk.wav", "cannot be read as audio"), ("silent.wav", "silent")]
)
def test_what_cannot_be_tagged_gets_a_sentence_that_names_no_folder(model, tmp_path, name, words):
    sf.write(tmp_path / name, np.zeros(8000), 8000, format="WAV")
    if "junk" in name:
        (tmp_path / name).write_bytes(b"no sound at all")
    said = page.answer(str(tmp_path / name), [Tagger(model)])
    assert words in said and str(tmp_path) not in said and "<b>" not in said
    assert not list(tmp_path.iterdir())
    assert "first" in page.answer(None, [])


@pytest.mark.parametrize("port", ["taken", "99999"])
def test_a_port_that_cannot_be_had(model, capsys, port):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[demo]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if port == "taken" else port
        assert cli.main(["demo", "--model", str(model), "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err
    assert cli.main(["demo", "--model", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Yield the page's address and the folder in which its server keeps temporary files."""
    pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[demo]'")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "freesound_tagging", "demo", "--model", str(model)]
    environment = os.environ | {"TMPDIR": str(temporary), "GRADIO_SHARE": "True"}
    proxies = ("http_proxy", "HTTPS_PROXY", "all_proxy")  # nobody answers there
    environment |= dict.fromkeys(proxies, "http://127.0.0.1:9") | {"ALL_PROXY": "socks5://[::1]:9"}
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts what runs in its background deaf to SIGINT, and so may these tests be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    address = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 5 * PATIENCE
    while True:
        assert server.poll() is None, server.stdout.read()
        try:
            urllib.request.urlopen(address, timeout=5)
            break
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
    yield address, temporary
    server.send_signal(signal.SIGINT)
    said, _ = server.communicate(timeout=PATIENCE)
    assert "gradio.live" not in said
    assert not list(temporary.glob("tag-a-sound-*"))


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no chromium and chromedriver are installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(driver))
    yield driver
    driver.quit()


def wait(browser, selector: str, there: bool = True):
    """Return the elements of a selector once there are any; else wait until there are none."""
    deadline = time.monotonic() + PATIENCE
    while bool(found := browser.find_elements("css selector", selector)) != there:
        assert time.monotonic() < deadline, f"{selector}: {there} did not come"
        time.sleep(0.2)
    return found


def test_a_browser_shows_labels_as_they_are_and_nothing_is_kept(browser, served, tmp_path):
    address, temporary = served
    sf.write(tmp_path / "tone.wav", sound(1.5), RATE)
    browser.get(address)
    wait(browser, "#sound input[type=file]")[0].send_keys(str(tmp_path / "tone.wav"))
    wait(browser, "#sound input[type=file]", there=False)  # the page shows the sound in its place
    time.sleep(0.5)
    wait(browser, "#tag")[0].click()
    images = wait(browser, "#said img")
    assert all(image.get_property("naturalWidth") > 600 for image in images)
    (said,) = browser.find_elements("css selector", "#said")
    assert any(" ".join(label.split()) in said.text for label in HOSTILE)
    assert len(browser.find_elements("css selector", "#said meter")) == 6
    assert not browser.find_elements("css selector", "#said b, #said em, #said strong, #said h1")
    assert not list(temporary.glob("tag-a-sound-*/**/*.wav"))


def test_only_this_machine_is_answered_and_the_browser_is_told_to_ask_no_other(served):
    answer = urllib.request.urlopen(served[0], timeout=PATIENCE)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    with socket.socket() as asking:  # another address of this machine, as another would use it
        asking.settimeout(5)
        assert asking.connect_ex(("127.0.0.2", urlsplit(served[0]).port)) != 0
