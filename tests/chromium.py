"""A headless Chromium, spoken to in its own protocol: Debian's package `chromium` and a websocket are all it needs."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
]
PATIENCE = 60.0  # seconds


class Browser:
    """One page of a running browser.

    Attributes:
        complaints: what the page said in the console, and what failed in it.
        requested: every address that it asked for.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.last_id = 0
        self.session: str | None = None
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self.is_loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
        self.last_id += 1
        message: dict[str, Any] = {"id": self.last_id, "method": method, "params": params}
        self.connection.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = self._receive()
            if answer.get("id") == self.last_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.connection.recv(PATIENCE))
        params = answer.get("params", {})
        match answer.get("method"):
            case "Page.loadEventFired":
                self.is_loaded = True
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Page.javascriptDialogOpening":
                self.complaints.append(json.dumps(params))
        return answer

    def open(
        self, page: Path | str, width: int = 1000, dark: bool = False, touch: bool = False, still: bool = False
    ) -> None:
        """Loads a file or an address in a window `width` pixels wide; `still` for one who wants nothing to move."""
        self.complaints.clear()
        self.requested.clear()
        self.is_loaded = False
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme, motion])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self.is_loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; of a promise, once it is kept."""
        options = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **options)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, (condition, self.complaints, self.run("document.body.innerText"))
            time.sleep(0.02)

    @contextmanager
    def frame(self, end_of_url: str) -> Iterator[None]:
        """Lets the other methods speak to a frame of the page that has a process of its own, as sandboxed ones do."""
        page = self.session
        end = time.monotonic() + PATIENCE
        while not (frames := self._frames(end_of_url)):
            assert time.monotonic() < end, f"no frame of {end_of_url}"
            time.sleep(0.02)
        self.session = self.call("Target.attachToTarget", targetId=frames[0], flatten=True)["sessionId"]
        try:
            yield
        finally:
            self.session = page

    def _frames(self, end_of_url: str) -> list[str]:
        targets = self.call("Target.getTargets", filter=[{"type": "iframe"}])["targetInfos"]
        return [target["targetId"] for target in targets if target["url"].endswith(end_of_url)]

    def choose_files(self, selector: str, *files: Path) -> None:
        """Chooses files in a file input, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.absolute()) for file in files])

    def mouse(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def tap(self, x: float, y: float) -> None:
        """Touches the screen for a moment."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, code: int, shift: bool = False) -> None:
        """Presses a key that writes nothing."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=8 * shift
            )

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def picture(self, page_height: bool = True) -> bytes:
        """The page as it is seen, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=page_height)
        return base64.b64decode(shot["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts a Chromium with nothing but its defaults, and ends it; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            with connect(_address(Path(folder), process), max_size=None, proxy=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser listens, which it writes to a file when it does."""
    port_file, end = folder / "DevToolsActivePort", time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if port_file.is_file() and len(lines := port_file.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start (status {process.poll()})")
