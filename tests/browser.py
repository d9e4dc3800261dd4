"""A headless Chromium, driven over the WebDriver protocol (W3C) by its own driver; pytest alone is needed."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--hide-scrollbars", "--force-device-scale-factor=1",
]  # fmt: skip


def needed(*brought: Path) -> None:
    """Skip a test where there is no browser, or where `make viewer` did not bring these files."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with its driver")
    if not all(path.is_file() for path in brought):
        pytest.skip("no viewer; `make viewer` brings it")


class Browser:
    """One window."""

    def __init__(self, address: str, size: tuple[int, int], folder: Path) -> None:
        self.address, self.downloads = address, folder / "downloads"
        wanted = {
            "browserName": "chrome",
            "timeouts": {"script": 300_000},
            "goog:chromeOptions": {
                "binary": CHROMIUM,
                "args": [*FLAGS, f"--window-size={size[0]},{size[1]}"],
                "prefs": {
                    "download.default_directory": str(self.downloads),
                    "profile.default_content_setting_values.automatic_downloads": 1,
                },
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/{made['sessionId']}"

    def _ask(self, how: str, what: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if how == "POST" else None
        request = urllib.request.Request(self.address + what, data, method=how)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(error.read().decode()[:2000]) from None

    def open(self, page: Path | str) -> None:
        """Open a page from disk, or at an address."""
        self._ask("POST", "/url", {"url": page if isinstance(page, str) else page.as_uri()})

    def give(self, element: str, path: Path) -> None:
        """Choose a file, or a folder, in an element by its id."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": f"#{element}"})
        self._ask("POST", f"/element/{next(iter(found.values()))}/value", {"text": str(path)})

    def saved(self, name: str) -> Path:
        """The file that the page saves by its link of this name."""
        self.run(f"document.querySelector('a[download={json.dumps(name)}]').click()")
        end = time.monotonic() + 30
        while not (path := self.downloads / name).is_file():
            assert time.monotonic() < end, f"{name} was not saved"
            time.sleep(0.1)
        return path

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, condition: str, seconds: float = 240) -> None:
        """Until a condition of the page holds."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}\n{self.log('browser')}"
            time.sleep(0.2)

    def drag(self, start: tuple[float, float], to: tuple[float, float]) -> None:
        """Press the mouse, move it, and let go."""

        def move(at: tuple[float, float]) -> dict[str, Any]:
            return {"type": "pointerMove", "duration": 50, "x": round(at[0]), "y": round(at[1])}

        middle = ((start[0] + to[0]) / 2, (start[1] + to[1]) / 2)
        steps = [move(start), {"type": "pointerDown", "button": 0}, move(middle), move(to)]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        actions = [{**mouse, "actions": [*steps, {"type": "pointerUp", "button": 0}]}]
        self._ask("POST", "/actions", {"actions": actions})

    def wheel(self, at: tuple[float, float], down: int) -> None:
        """Turn the wheel."""
        scroll = {"type": "scroll", "x": round(at[0]), "y": round(at[1]), "deltaX": 0, "deltaY": down}
        self._ask("POST", "/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [scroll]}]})

    def keys(self, text: str) -> None:
        """Press keys where the focus is."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def png(self) -> bytes:
        """What is seen."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the browser wrote since it was last asked."""
        return self._ask("POST", "/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """The address of everything that was asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        """End the session."""
        self._ask("DELETE", "")


@contextmanager
def browser(folder: Path, size: tuple[int, int] = (1280, 1000)) -> Iterator[Browser]:
    """Start one that downloads to ``folder``; its profile has a short path, as a socket in it must have."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = tempfile.TemporaryDirectory(prefix="seran-", ignore_cleanup_errors=True)
    with (folder / "driver.log").open("w") as log, own as short:
        driver = subprocess.Popen(
            [str(DRIVER), f"--port={port}"],
            stdout=log, stderr=log, env={**os.environ, "TMPDIR": short},
        )  # fmt: skip
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    made = Browser(f"http://127.0.0.1:{port}/session", size, folder)
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert time.monotonic() < end, (folder / "driver.log").read_text()
                    time.sleep(0.2)
            try:
                yield made
            finally:
                made.close()
        finally:
            driver.terminate()
            driver.wait(30)
