"""Held-out questions of every field, asked of `model = "auto"`: who answered them, and how well, beside the base.

    genwright --project az serve --port 8000 &        # any of the four: their library is one
    python ask.py http://127.0.0.1:8000 [--rows 8]

Prints for each field: questions, share that reached the field's own expert, chrF of the answers, chrF of the base's.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from genwright.evaluate.metrics import CHRF

HERE = Path(__file__).parent
TABLE: dict[str, Any] = runpy.run_path(str(HERE / "table.py"))
LONGEST = 32


def wait(url: str, seconds: float = 600.0) -> None:
    """Until the first token can be produced. Exits where it never can."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise SystemExit(f"{url} did not become ready within {seconds:g} s")


def ask(url: str, model: str, prompt: str) -> tuple[str, str]:
    """(who answered, what) of one greedy answer."""
    message = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": message, "max_tokens": LONGEST, "temperature": 0}
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=300) as answer:
        told = json.load(answer)
    return str(told["genwright"]["expert"] or "base"), str(told["choices"][0]["message"]["content"])


def measured(url: str, folder: Path, rows: int) -> dict[str, dict[str, float]]:
    """Field -> rows, right (share that its own expert answered), auto and base (chrF)."""
    found = {}
    for field in TABLE["FIELDS"]:
        asked = sorted(TABLE["answers"](folder / field, "lora").items())[:rows]
        wanted = [reference for _, (_, reference) in asked]
        auto, base = ([ask(url, model, prompt) for prompt, _ in asked] for model in ("auto", "base"))
        found[field] = {
            "rows": len(asked), "right": sum(who == f"expert-{field}" for who, _ in auto) / len(asked),
            "auto": CHRF.corpus([said for _, said in auto], wanted), "base": CHRF.corpus([said for _, said in base], wanted),
        }  # fmt: skip
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=8, help="questions of each field")
    parser.add_argument("--folder", type=Path, default=HERE)
    chosen = parser.parse_args()
    wait(chosen.url)
    print(f"{'asked of auto':>14}{'rows':>6}{'right':>8}{'chrF':>8}{'base':>8}")
    for field, one in measured(chosen.url, chosen.folder, chosen.rows).items():
        print(f"{field:>14}{one['rows']:6}{one['right']:8.0%}{one['auto']:8.1f}{one['base']:8.1f}")


if __name__ == "__main__":
    main()
