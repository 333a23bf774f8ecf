"""A headless Chromium to look at pages with: what they show, say on the console, and ask a network for.

Chromium is driven by its DevTools protocol over a pair of pipes (--remote-debugging-pipe): messages are JSON, each with
a zero byte at its end. Nothing beside the standard library is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Dict, List, Optional, Type

#: Names of the program, the first that is there is taken.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Seconds that an answer may take: a machine may be busy.
PATIENCE_S = 60.0
#: Events that tell of what a page must not do.
_CONSOLE = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class BrowserError(Exception):
    """The browser does not do what it is told."""


def program() -> Optional[str]:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass
class Seen:
    """What a page did since it was opened.

    Args:
        console: messages, errors and faults of the page.
        requests: addresses that it asked for, beside itself.
    """

    console: List[str] = field(default_factory=list)
    requests: List[str] = field(default_factory=list)


class Browser:
    """A Chromium with one page; a context manager.

    Raises: BrowserError when it does not start or answer.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        self._buffer = b""
        self._session = ""
        self.seen = Seen()

    def __enter__(self) -> Browser:
        self._home = tempfile.mkdtemp(prefix="browser-")
        command = [
            self._path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
            "--force-color-profile=srgb", f"--user-data-dir={self._home}", "--remote-debugging-pipe",
            "about:blank",
        ]  # fmt: skip
        # Chromium reads 3 and writes 4: a shell puts its own input and output there.
        script = 'exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null'
        self._process = subprocess.Popen(  # noqa: S603  # the browser that was found
            ["/bin/sh", "-c", script, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101  # for the type checker: they are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._write, self._read = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            self._attach()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:  # fmt: skip
        with contextlib.suppress(BrowserError, OSError):
            self._session = ""
            self.call("Browser.close")
        try:
            self._process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)  # its own group: the browser and what it started
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        shutil.rmtree(self._home, ignore_errors=True)  # the browser may still write there

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Open a file at a width in pixels, in light or dark, on screen or as printed."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.seen = Seen()
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._take(self._message())
        self.seen.requests = [one for one in self.seen.requests if one != page.resolve().as_uri()]

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page.

        Raises: BrowserError when it fails.
        """
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def screenshot(self, height: Optional[int] = None, top: int = 0) -> bytes:
        """Return the page as PNG: all of it, or so many pixels from a place."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"], "scale": 1}  # fmt: skip
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(found["data"])

    def call(self, method: str, **parameters: Any) -> Dict[str, Any]:
        """Return the answer to a command of the protocol.

        Raises: BrowserError when it is refused, or none comes.
        """
        self._number += 1
        message: Dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return dict(answer.get("result", {}))
            self._take(answer)

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self) -> Dict[str, Any]:
        end = perf_counter() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - perf_counter()))
            data = os.read(self._read, 2**20) if ready else b""
            if not data:
                raise BrowserError(f"{self._path} does not answer; does it start by hand?")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(text))

    def _take(self, message: Dict[str, Any]) -> None:
        """Take in what the browser tells unasked."""
        method, told = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.seen.requests.append(str(told["request"]["url"]))
        elif method in _CONSOLE:
            self.seen.console.append(f"{method}: {json.dumps(told)[:500]}")
