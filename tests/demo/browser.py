"""A headless Chromium driven over the DevTools protocol, through two pipes: no driver and no package is needed.

https://chromedevtools.github.io/devtools-protocol: a message is JSON and a zero byte; the browser reads them on file
descriptor 3 and answers on 4.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
SECONDS = 600.0  # until a test gives up; a busy machine is no failure
INHERITED = 10  # pipes are moved up from here, out of the way of 3 and 4


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(RuntimeError):
    """What the browser answered, or that it did not."""


class Browser:
    """One page. `errors` are the page's uncaught exceptions and console errors."""

    def __init__(self, profile: Path, *flags: str) -> None:
        program = find_browser()
        assert program is not None
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, INHERITED) for end in (read_there, write_there)]
        null = os.open(os.devnull, os.O_WRONLY)
        self.process = os.posix_spawn(
            program,
            [program, *FLAGS, f"--user-data-dir={profile}", *flags, "about:blank"],
            os.environ | {"HOME": str(profile)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
            setpgroup=0,
        )
        for end in (*ends, read_there, write_there, null):
            os.close(end)
        self._read, self._write, self._number, self._buffer = read_here, write_here, 0, b""
        self.errors: list[str] = []
        target = next(
            one for one in self._call("Target.getTargets", session=None)["targetInfos"] if one["type"] == "page"
        )
        attach = {"targetId": target["targetId"], "flatten": True}
        self._session = self._call("Target.attachToTarget", attach, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and its helpers; whatever it logs to files is whole then."""
        try:
            self._call("Browser.close", session=None)
        except BrowserError:
            os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self._read)
        os.close(self._write)

    def open(self, url: str) -> None:
        self._call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what it promises. Raises BrowserError with its exception."""
        arguments = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self._call("Runtime.evaluate", arguments)
        if "exceptionDetails" in answer:
            raise BrowserError(_exception(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Until the JavaScript condition holds."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise BrowserError(f"after {seconds:.0f} s not yet: {condition}; errors: {self.errors}")
            time.sleep(0.05)

    def press(self, key: str, **more: Any) -> None:
        """A key that is pressed and released, by its DOM name: "ArrowLeft", "5", "Tab"."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        codes = {"Tab": 9, "Enter": 13, "Backspace": 8, "Delete": 46, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        code = codes.get(key, ord(key.upper()[0]))
        base = {"key": key, "windowsVirtualKeyCode": code, **more}
        self._call("Input.dispatchKeyEvent", {"type": "keyDown", **base, **text})
        self._call("Input.dispatchKeyEvent", {"type": "keyUp", **base})

    def drag(self, places: list[tuple[float, float]]) -> None:
        """The mouse pressed at the first place, moved over the others, released at the last."""
        for number, (x, y) in enumerate(places):
            kind = "mouseMoved" if number else "mousePressed"
            self._call(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 0 if number else 1},
            )
        x, y = places[-1]
        self._call(
            "Input.dispatchMouseEvent", {"type": "mouseReleased", "x": x, "y": y, "button": "left", "clickCount": 1}
        )

    def choose_file(self, selector: str, file: Path) -> None:
        """The file is given to the input element of this selector."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self._call("DOM.setFileInputFiles", {"files": [str(file)], "nodeId": node})

    def show_as(self, width: int, height: int, *, scheme: str = "light", mobile: bool = False) -> None:
        """The size of the window in CSS pixels, and which colour scheme the visitor prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": ""}]
        self._call("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, file: Path) -> Path:
        """A PNG of the whole page, below the window's edge too."""
        answer = self._call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(answer["data"]))
        return file

    def processor_seconds(self) -> float:
        """What the browser and its helpers have computed so far, on all threads; less hangs on who else computes."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            except ProcessLookupError:  # it has ended meanwhile
                continue
            if int(fields[2]) == self.process:  # the process group
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def accessibility_tree(self) -> list[dict[str, Any]]:
        """The nodes that a screen reader is told of."""
        self._call("Accessibility.enable")
        return [node for node in self._call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]

    def _call(self, method: str, arguments: dict[str, Any] | None = None, session: str | None = "") -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments or {}}
        if session is not None:
            message["sessionId"] = session or self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._receive(lambda one: one.get("id") == self._number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while True:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(line)
                self._note(message)
                if wanted(message):
                    return message
            if not select.select([self._read], [], [], max(0, end - time.monotonic()))[0]:
                raise BrowserError("the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise BrowserError("the browser has ended")
            self._buffer += part

    def _note(self, message: dict[str, Any]) -> None:
        values = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(_exception(values["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
