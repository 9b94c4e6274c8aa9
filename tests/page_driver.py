"""What the tests of the page share: a gateway to look at, a browser, and a person who is logged in.

The stand-in `web_mock` is looked at, unless REWARDLOOP_PAGE_URL names a gateway that runs (with REWARDLOOP_PAGE_USER
and REWARDLOOP_PAGE_PASSWORD); what only the stand-in can do is then left out.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
AXE = TESTS.parent / "web" / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 30_000

# Runs before any script of the page: counts what must never happen.
WATCH = """
window.broken = []; window.executed = 0; window.fired = () => { window.executed += 1; };
document.addEventListener('securitypolicyviolation', (event) =>
  window.broken.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Place:
    """A gateway that runs, and somebody whom it knows."""

    url: str
    name: str = "anna"
    password: str = "correct horse"  # noqa: S105  (the stand-in's)
    is_mock: bool = True


@contextmanager
def stand_in(*options: str) -> Iterator[Place]:
    """The stand-in in a process of its own on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "web_mock", "--port", str(port), *options]
    paths = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, cwd=TESTS, env=os.environ | {"PYTHONPATH": paths})
    try:
        place = Place(f"http://127.0.0.1:{port}")
        wait_until_up(place.url, process)
        yield place
    finally:
        process.terminate()
        process.wait(10)


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/api/state"):  # noqa: S310  (our own address)
                return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the stand-in ended before it answered"
            time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer within a minute")


@contextmanager
def gateway() -> Iterator[Place]:
    """The gateway that the environment names, else the stand-in."""
    if url := os.environ.get("REWARDLOOP_PAGE_URL"):
        known = {key: os.environ[f"REWARDLOOP_PAGE_{key.upper()}"] for key in ("user", "password")}
        yield Place(url.rstrip("/"), known["user"], known["password"], is_mock=False)
    else:
        with stand_in() as place:
            yield place


def find_chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


@dataclass
class Visit:
    """One browser window at one place, and everything that its console complained about."""

    place: Place
    page: Any
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda entry: self.complaints.append(entry.text) if entry.type == "error" else None)

    def log_in(self) -> None:
        self.open("/")
        self.page.fill("input[name=username]", self.place.name)
        self.page.fill("input[name=password]", self.place.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_selector(".frame")

    def open(self, path: str) -> None:
        self.page.goto(self.place.url + path)

    def speak(self, language: str) -> None:
        """Sets the person's language; the next screen opened shows it."""
        self.page.request.patch(f"{self.place.url}/api/me", data={"language": language})

    def ask(self, question: str) -> None:
        """Asks in the chat and waits until the answer is whole."""
        answers = self.page.locator(".answer")
        before = answers.count()
        self.page.fill("#composer", question)
        self.page.press("#composer", "Enter")
        self.page.wait_for_function("count => document.querySelectorAll('.answer').length > count", arg=before)
        self.page.wait_for_selector(".answer:last-of-type[data-phase=done]")

    def check_unbroken(self) -> None:
        """Nothing was executed that should not be, no rule of the content policy was touched, no error shown."""
        seen = (self.page.evaluate("window.executed"), self.page.evaluate("window.broken"), self.complaints)
        assert seen == (0, [], [])

    def check_words(self) -> None:
        """Nothing is shown that is no word and no number: a value of another kind than the page takes it for."""
        shown = self.page.locator("body").inner_text()
        assert re.findall(r".*(?:\bNaN\b|\bundefined\b|\[object |\bnull\b).*", shown) == []

    def serious_barriers(self) -> list[str]:
        """What axe-core finds serious or worse. Needs `npm ci` in web/."""
        if not AXE.is_file():
            pytest.skip("axe-core is not installed: run npm ci in web/")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0].get('failureSummary', '')[:200]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
