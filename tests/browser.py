"""A headless Chromium that one start opens many pages in: by DevTools' protocol, over pipes."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess

CHROMIUM = shutil.which("chromium")
_SECONDS_TO_ANSWER = 60


class Browser:
    """One tab of a running Chromium.

    Attributes:
      console: what the console has said of the page that is shown.
    """

    def __init__(self, reader, writer):
        """Takes the pipes of a Chromium that was just started, and its only tab."""
        self._reader, self._writer = reader, writer
        self._buffer, self._number, self._session = b"", 0, None
        self.console = []
        self._loaded = False
        targets = self._send("Target.getTargets")["targetInfos"]
        (page,) = (target["targetId"] for target in targets if target["type"] == "page")
        attached = self._send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")

    def show(self, file, width, *, dark=False, media="screen"):
        """Opens a file in a window of a width, and waits until it is loaded."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._loaded = False
        self.console.clear()
        self._send("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._hear(self._receive())

    def evaluate(self, expression):
        """The value of an expression of JavaScript in the page."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def picture(self):
        """The whole page as the content of a PNG file."""
        size = self._send("Page.getLayoutMetrics")["cssContentSize"]
        found = self._send(
            "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
        )
        return base64.b64decode(found["data"])

    def pdf(self):
        """The page as it is printed on A4, in its own margins, as the content of a PDF file."""
        found = self._send(
            "Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69
        )
        return base64.b64decode(found["data"])

    def _send(self, method, **params):
        """Calls a method of the protocol, and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]
            self._hear(answer)

    def _hear(self, event):
        """Keeps what an event says that nobody waits for."""
        method, params = event.get("method"), event.get("params")
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.console.append(params)

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], _SECONDS_TO_ANSWER)
            part = os.read(self._reader.fileno(), 1 << 20) if ready else b""
            assert part, "Chromium does not answer"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def open_browser(profile):
    """Starts Chromium with a directory for its profile; it ends with the context."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
    with subprocess.Popen(
        [
            # Chromium talks over the file descriptors 3 and 4.
            *("sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", CHROMIUM),
            *(*flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield Browser(process.stdout, process.stdin)
        finally:
            process.terminate()
