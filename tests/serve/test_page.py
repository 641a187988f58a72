"""The page at / in a real browser: a question is typed and sent, and what it shows is what the meter has."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from genwright.serve.contracts import Expert, Route

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = """<script>
addEventListener("load", () => setTimeout(() => {
  document.getElementById("text").value = "who sits in a court";
  document.getElementById("send").click();
}, 100));
</script>"""


class Library:
    law = Expert("law", Path("law"), "v1")

    def experts(self):
        return (self.law,)

    def get(self, name):
        return self.law if name == "law" else None


class Router:
    def route(self, request, held):
        return Route("law", 0.91, 0.4, "fits")


def browse(url: str, profile: Path) -> tuple[str, str]:
    """(what the page became, what the browser said) after five seconds of the page's own time."""
    command = [
        CHROMIUM or "",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
    ]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_question_is_answered_by_an_expert_with_tokens_joules_and_cost(
    serve_with, echo, tmp_path, monkeypatch
) -> None:
    from genwright.serve import gateway
    from genwright.serve.answers import Prices

    page = gateway.importlib.resources.files("genwright.serve").joinpath("page.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page + DRIVER, encoding="utf-8")
    monkeypatch.setattr(gateway.importlib.resources, "files", lambda _: tmp_path)
    with serve_with(echo, library=Library(), router=Router(), prices=Prices(1.0, 0.1, 1000.0)) as server:
        dom, said = browse(server.url, tmp_path / "profile")
        record = server.settled(1)[0]
    text = html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", "\n", dom, flags=re.DOTALL))
    assert "CONSOLE" not in said, said
    assert text.count("who sits in a court") == 2  # asked, and said again by the engine
    facts = next(line for line in text.splitlines() if line.startswith("law (fits"))
    assert facts == f"law (fits, score 0.91) · 5 tokens · {record['joules']:.2f} J rapl · ${record['usd']:.6f}"
    assert record["expert"] == "law" and record["usd"] == pytest.approx((5 * 1.0 + 5 * 1000.0) / 1e6)
    assert f"In all: 10 tokens, {record['joules']:.2f} J" in text
