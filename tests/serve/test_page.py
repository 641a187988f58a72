"""The page at / in a real browser: a question is typed and sent, and what it shows is what the meter has."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from genwright.serve.contracts import Expert, Route

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)
WAIT = "const until = async true_ => { while (!true_()) await new Promise(go => setTimeout(go, 20)); };"
ASK = """(async () => { %s const at = id => document.getElementById(id);
  await until(() => at("text") && document.readyState === "complete");
  at("text").value = "who sits in a court"; at("send").click();
  await until(() => %s);
  return document.body.innerText; })()"""
ANSWERED = 'at("sum").textContent'
STOPPED = """{ const [live] = [...document.querySelectorAll(".facts")].slice(-2);
  if (live.textContent.includes("1 tokens")) at("stop").click(); return live.textContent === "stopped"; }"""


class Library:
    law = Expert("law", Path("law"), "v1")

    def experts(self):
        return (self.law,)

    def get(self, name):
        return self.law if name == "law" else None


class Router:
    def route(self, request, held):
        return Route("law", 0.91, 0.4, "fits")


async def browse(url: str, profile: Path, script: str) -> tuple[str, list[dict[str, Any]]]:
    """(what the script returned, what the page complained of), over the browser's own protocol."""
    command = [CHROMIUM or "", *OPTIONS, f"--user-data-dir={profile}", url]
    browser = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(90), aiohttp.ClientSession() as session:
            while b"DevTools listening on ws://" not in (line := await browser.stderr.readline()):
                assert line, "the browser did not start"
            port = line.decode().split("://")[1].split("/")[0]
            pages: list[dict[str, Any]] = []
            while not pages:
                listed = await (await session.get(f"http://{port}/json/list")).json()
                pages = [one for one in listed if one["url"].startswith(url)]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"]) as page:
                return await evaluated(page, script)
    finally:
        browser.kill()
        await browser.wait()


async def evaluated(page: aiohttp.ClientWebSocketResponse, script: str) -> tuple[str, list[dict[str, Any]]]:
    """A script is asked again where the page before this one went away under it."""
    said: list[dict[str, Any]] = []
    await page.send_json({"id": 0, "method": "Runtime.enable"})
    while True:
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
        await page.send_json({"id": 1, "method": "Runtime.evaluate", "params": asked})
        while (told := await page.receive_json()).get("id") != 1:
            said += [told] if told.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled") else []
        if "error" not in told:
            assert "value" in told["result"]["result"], told
            return str(told["result"]["result"]["value"]), said


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_question_is_answered_by_an_expert_with_tokens_joules_and_cost(serve_with, echo, tmp_path) -> None:
    from genwright.serve.answers import Prices

    with serve_with(echo, library=Library(), router=Router(), prices=Prices(1.0, 0.1, 1000.0)) as server:
        text, said = asyncio.run(browse(f"{server.url}/", tmp_path / "profile", ASK % (WAIT, ANSWERED)))
        (record,) = server.settled(1)
    assert not said
    assert text.count("who sits in a court") == 2  # asked, and said again by the engine
    facts = next(line for line in text.splitlines() if line.startswith("law (fits"))
    assert facts == f"law (fits, score 0.91) · 5 tokens · {record['joules']:.2f} J rapl · ${record['usd']:.6f}"
    assert record["expert"] == "law" and record["usd"] == pytest.approx((5 * 1.0 + 5 * 1000.0) / 1e6)
    assert f"In all: 10 tokens, {record['joules']:.2f} J" in text


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_stop_frees_the_engine(serve_with, echo, tmp_path) -> None:
    """The engine waits after its first token, for ever: it is told to stop when the button is pressed."""
    echo.hold = threading.Event()
    with serve_with(echo) as server:
        text, said = asyncio.run(browse(f"{server.url}/", tmp_path / "profile", ASK % (WAIT, f"(() => {STOPPED})()")))
        (record,) = server.settled(1)
    assert not said and "stopped" in text
    assert (record["outcome"], record["generated_tokens"], echo.running, echo.closed) == ("cancelled", 1, 0, 1)
