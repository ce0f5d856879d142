"""The page in a real browser: a sound gets three bars and a picture, junk gets a sentence."""

import json
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

from freesound_tagging import cli

pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[demo]'")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium and chromedriver are installed"
)

RATE = 22_050
HOSTILE = ["<b>a</b>", "$x^2$ _b_", "${7*7} {{7*7}}", "# d\n\n**e**"]
"""Labels that stand on the page as they are."""

PATIENCE = 180
"""Seconds that a busy machine may take for an answer."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from test_tagger import write_model

    return write_model(tmp_path_factory.mktemp("models") / "mine" / "smoke", classes=HOSTILE)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Yield the page's address and the folder in which its server keeps temporary files."""
    port, temporary = free_port(), tmp_path_factory.mktemp("temporary")
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
            answer = urllib.request.urlopen(address, timeout=5)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
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
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1000,1600")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def find(browser, selector: str, count: int = 1):
    """Return the elements of a selector once there are that many."""
    from selenium.webdriver.support.ui import WebDriverWait

    def enough(driver):
        found = driver.find_elements("css selector", selector)
        return found if len(found) >= count else None

    return WebDriverWait(browser, PATIENCE).until(enough, f"{selector} did not come")


def read(browser, words: str) -> str:
    """Return what the page says once it says the words."""
    from selenium.webdriver.support.ui import WebDriverWait

    def said(driver):
        text = " ".join(e.text for e in driver.find_elements("css selector", "#said"))
        return text if words in text else None

    return WebDriverWait(browser, PATIENCE).until(said, f"{words!r} was not said")


def upload(browser, path: Path) -> None:
    find(browser, "#sound input[type=file]")[0].send_keys(str(path))
    # Once it is there, the page shows it in place of the field.
    deadline = time.monotonic() + PATIENCE
    while browser.find_elements("css selector", "#sound input[type=file]"):
        assert time.monotonic() < deadline, "the upload did not end"
        time.sleep(0.1)
    time.sleep(0.5)
    find(browser, "#tag")[0].click()


def uploads(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.glob("tag-a-sound-*/**/*")
        if file.is_file() and file.suffix in (".wav", ".flac", ".mp3")
    ]


@needs_browser
def test_a_sound_gets_three_bars_and_a_picture_and_is_not_kept(served, browser, tmp_path):
    address, temporary = served
    t = np.arange(2 * RATE) / RATE
    sf.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 900 * t), RATE)
    browser.get(address)
    upload(browser, tmp_path / "tone.wav")
    said = read(browser, "heard best at")
    assert "log_db: " in said and "hires_q2: " in said
    flat = [" ".join(label.split()) for label in HOSTILE]
    assert sum(label in said for label in flat) >= 1
    assert not browser.find_elements("css selector", "#said b, #said em, #said strong, #said h1")
    for number in (0, 1):
        bars = find(browser, f"#bars-{number} .confidence-set", 3)
        assert len(bars) == 3
        for bar in bars:
            assert any(label in " ".join(bar.text.split()) for label in flat), bar.text
        shares = [int(bar.text.split("%")[0].split()[-1]) for bar in bars]
        assert shares == sorted(shares, reverse=True)
    (image,) = find(browser, "#drawn img")
    assert image.get_property("naturalWidth") > 600
    (heard,) = find(browser, "#heard audio")
    assert heard.get_attribute("src").startswith("data:audio/wav")
    assert uploads(temporary) == []


@needs_browser
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("<b>junk $a_b$.wav", b"no sound at all", "cannot be read as audio"),
        ("silent.wav", None, "silent"),
        ("long.wav", None, "lasts 61 s"),
    ],
)
def test_what_cannot_be_tagged_gets_a_sentence(served, browser, tmp_path, name, content, words):
    address, temporary = served
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    else:
        sf.write(path, np.zeros((61 if "long" in name else 2) * 8000), 8000)
    browser.get(address)
    upload(browser, path)
    said = read(browser, words)
    assert str(temporary) not in said and "Traceback" not in said
    assert not browser.find_elements("css selector", "#said b, #said em")
    assert not browser.find_elements("css selector", "#drawn img")
    assert uploads(temporary) == []


@needs_browser
def test_nothing_uploaded_and_a_generated_sound(served, browser):
    browser.get(served[0])
    find(browser, "#tag")[0].click()
    read(browser, "Record or upload a sound first.")
    find(browser, "#example")[0].click()
    read(browser, "heard best at")
    find(browser, "#drawn img")


@needs_browser
def test_the_page_asks_no_other_machine(served, browser):
    browser.get_log("performance")
    browser.get(served[0])
    find(browser, "#tag")
    time.sleep(2)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        urlsplit(message["params"]["request"]["url"])
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    others = {url.netloc for url in asked if url.scheme not in ("data", "blob", "chrome")}
    assert others == {urlsplit(served[0]).netloc}


def test_only_this_machine_is_answered(served):
    """Another address of this machine, as another machine would use it, finds nobody."""
    port = urlsplit(served[0]).port
    with socket.socket() as asking:
        asking.settimeout(5)
        assert asking.connect_ex(("127.0.0.2", port)) != 0


def test_a_port_that_is_taken(model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["demo", "--model", str(model), "--port", str(port)]) == 2
    assert f"port {port}" in capsys.readouterr().err


def test_a_port_that_no_machine_has(model, capsys):
    assert cli.main(["demo", "--model", str(model), "--port", "99999"]) == 2
    assert "port 99999" in capsys.readouterr().err
