"""The page tells what was recorded, escapes what rows hold, and asks nothing of anybody."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from genwright.base.errors import BadRequest
from genwright.web.report import render
from genwright.web.report_scores import loss_lines
from genwright.web.summaries import read_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Words(HTMLParser):
    """The visible words, the elements and the addresses of a page; fails on a wrong nesting."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.open, self.elements, self.addresses = "", [], [], []
        self.feed(page)
        assert self.open == [], f"elements left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")
        ]
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


def test_the_page_says_what_was_recorded(finished: Path) -> None:
    words = " ".join(Words(render(finished)).words.split())
    assert "Target met. lora is as high as this project had to climb." in words
    assert "50.7 command-path" in words
    assert "95 % interval 45.9 to 55.5, 412 test rows" in words
    assert "2.31 GiB 2.2 GiB to 2.5 GiB 2.36 GiB × 1.02 in range" in words
    assert "1.12 GiB 1 GiB to 1.3 GiB 1.43 GiB × 1.28 outside" in words
    assert "energy unknown this machine's watts are unknown: set hardware.watts" in words
    assert "few-shot → lora better +27.6 p < 0.001 · mcnemar-exact" in words
    assert "lora beside few-shot, row by row: 4 gained, 1 lost, 2 unchanged." in words
    assert "adapt.steps changed: 100 -> 240" in words
    assert "torch 2.13.0+cpu" in words and "machine 2 cores, 15.6 GiB" in words
    assert "result (merged) .genwright/artifacts/integrate/inc0ffeec0ffeec0/model, 513 MiB" in words
    assert "largest logit difference 1.9e-05" in words
    assert "adc0ffee" in words and "note dequantised Q4_1, not the original weights" in words


def test_a_missed_target_is_said(recorded: ModuleType, tmp_path: Path) -> None:
    summaries = {**recorded.SUMMARIES, "evaluate": {**recorded.SUMMARIES["evaluate"], "met": False, "target": 80.0}}
    words = Words(render(recorded.write_project(tmp_path / "missed", summaries=summaries))).words
    assert "Target not met." in words


def test_a_project_that_has_only_begun_is_shown_too(recorded: ModuleType, tmp_path: Path) -> None:
    summaries = {"scope": recorded.SUMMARIES["scope"]}
    words = Words(render(recorded.write_project(tmp_path / "begun", summaries=summaries))).words
    assert "Not finished." in words


def test_every_stage_alone_can_be_missing(recorded: ModuleType, tmp_path: Path) -> None:
    for missing in recorded.SUMMARIES:
        summaries = {stage: summary for stage, summary in recorded.SUMMARIES.items() if stage != missing}
        assert Words(render(recorded.write_project(tmp_path / missing, summaries=summaries))).elements


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"nothing to report.*\n.*\n.*genwright apply"):
        render(tmp_path)


def test_rows_cannot_put_markup_into_the_page(finished: Path) -> None:
    page = render(finished)
    assert "script" not in Words(page).elements
    assert "&lt;script&gt;document.title=&#x27;owned&#x27;&lt;/script&gt;" in page
    assert "<b>bold</b>" not in page


def test_the_page_names_no_address(finished: Path) -> None:
    page = render(finished)
    assert Words(page).addresses == []
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_drawing_says_what_it_shows(finished: Path) -> None:
    page = render(finished)
    drawings = re.findall(r"<svg[^>]*>", page)
    assert len(drawings) > 15
    assert all('role="img"' in drawing and 'aria-label="' in drawing for drawing in drawings)


def test_a_step_done_again_after_a_kill_is_drawn_once(recorded: ModuleType, finished: Path) -> None:
    path = finished / ".genwright" / "events.jsonl"
    again = '{"time": 1, "kind": "step", "stage": "adapt", "rung": "lora", "step": 240, "total": 240, "loss": 0.5}\n'
    path.write_text(path.read_text() + again)
    train, valid = loss_lines(read_results(finished))["lora"]
    assert len(train) == 240 and train[-1] == (240, 0.5)
    assert len(valid) == 8


@pytest.fixture
def browse(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Load a page in a real browser: (what the page became, what the browser said, what the page asked for)."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")

    def load(page: str, *flags: str) -> tuple[str, str, set[str]]:
        file, log = tmp_path / "page.html", tmp_path / "net.json"
        file.write_text(page, encoding="utf-8")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--enable-logging=stderr"]
        done = subprocess.run([*command, *flags, file.as_uri()], capture_output=True, text=True, timeout=60, check=True)
        asked = re.findall(r'"initiator":"([^"]*)".*?"url":"([^"]*)"', log.read_text(errors="replace"))
        return done.stdout, done.stderr, {url for origin, url in asked if origin != "not an origin"}

    return load


@pytest.mark.browser
def test_a_browser_shows_the_page_and_runs_and_fetches_nothing(browse, finished: Path) -> None:  # type: ignore[no-untyped-def]
    page, said, asked = browse(render(finished), "--dump-dom")
    assert "<title>cloud-commands · Genwright report</title>" in page
    assert "CONSOLE" not in said, said
    assert asked == set()


@pytest.mark.browser
def test_the_browser_test_would_see_a_script_and_a_request(browse) -> None:  # type: ignore[no-untyped-def]
    bad = "<title>x</title><img src='http://127.0.0.1:9/pixel.png'><script>document.title='owned'; nonsense()</script>"
    page, said, asked = browse(bad, "--dump-dom")
    assert "<title>owned</title>" in page
    assert "CONSOLE" in said
    assert asked == {"http://127.0.0.1:9/pixel.png"}


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_is_never_wider_than_its_window(browse, finished: Path, width: int) -> None:  # type: ignore[no-untyped-def]
    told = "<script>onload = () => document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script>"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', told, render(finished))
    dom, _, _ = browse(page, "--dump-dom", "--hide-scrollbars", f"--window-size={width},900")
    assert f"<title>{width} of {width}</title>" in dom


def test_a_reused_stage_says_why_it_was_reused_not_why_it_once_ran(recorded: ModuleType, tmp_path: Path) -> None:
    base = recorded.write_project(tmp_path)
    with (base / ".genwright" / "events.jsonl").open("a") as record:
        record.write(json.dumps({"time": 1.8e9, "kind": "stage_reused", "stage": "scope", "key": "c0ffee"}) + "\n")
    page = render(base)
    assert "<b>reused</b> · nothing that it depends on has changed" in page
    assert "<b>reused</b> · never run" not in page and "<b>done</b> · never run" in page
