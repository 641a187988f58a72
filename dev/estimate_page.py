"""Write docs/estimate.md: the words stand here, every command is run and its output put beneath it.

.venv/bin/python dev/estimate_page.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WORDS = """# Estimates

`genwright estimate` says what a training or a service takes before anything is spent: memory as three numbers that are never mixed up
(active: live tensors; reserved: what the allocator holds for them; device: what `nvidia-smi` shows), time, money, energy, carbon, how
often to save. No weights are needed, and no network. How true it is: [plan-accuracy.md](plan-accuracy.md). Every output below was
written by `python dev/estimate_page.py`.

## One training

$ genwright estimate llama-3.1-8b --adapter lora --device h100 --seq-len 4096

The first plan of a model traces its step; the trace is kept (in `$GENWRIGHT_CACHE`, else `~/.cache/genwright`), so another device or
another count is priced from it without loading torch. `--json` has the same numbers with `low` and `high`, the peak of every phase in
`bytes`, the price with its source, the checkpoint intervals of Young and Daly with the seconds a day loses at half, at and at twice the
interval, and every default that was filled in.

$ genwright estimate llama-3.1-70b --adapter full --device h100 --count 64 --strategy zero3 --recompute full --seq-len 8192

Time is from data sheets ("datasheet" in `basis`) unless the cache, or `--calibration FILE`, holds a file that `genwright calibrate`
wrote on such a device. `--region` sets whose grid the carbon is counted on. `--batch-size` states the rows of a whole step instead of
`--accumulate`. `--strategy auto` prices every strategy on `--count` devices and takes the fastest that fits.

## For a budget

$ genwright estimate smollm2-360m --adapter full --budget 5usd --device h100,a10g,t4 --count 2 --seq-len 1024 --steps 1000

For each device, count and strategy the recipes are tried from the fastest to the leanest until one fits; all take the same steps of the
same rows. What fits is listed cheapest first. What does not fit names the line of the breakdown at which the sum outgrows the device, in
the order of what must stand, and the smallest change that mends it: recomputing, one row at a time, splitting more, fewer bits, shorter
rows, the host's memory, then more devices. Units are usd, h and kwh; several may be given (`20usd,10h`). `--plot FILE` writes time against
money as an SVG. The exit code is 3 when nothing is within the budget.

## For serving

$ genwright estimate llama-3.1-8b --serve chatbot --device h100

See [serving.md](serving.md) for what is counted.

## A table of measurements

`genwright estimate --rows rows.csv --out predictions.csv` prices every row of a table, one prediction a row, by `id`. Columns that hold
results are never read; what a row leaves out is its framework's documented default, and `notes` says so. A row that cannot be priced has
its reason in `refused`; a file without the columns `id` and `model` is refused whole.

## A wrong request

Each names the nearest that would work, and the exit code is 2.

$ genwright estimate llama-3.1-8bb --device h100
$ genwright estimate llama-2-7b --device h100 --seq-len 8192
$ genwright estimate llama-3.1-8b --device v100 --precision bf16
$ genwright estimate llama-3.1-8b --device h100 --strategy zero3
$ genwright estimate llama-3.1-8b --device h100 --count 8 --micro-batch 2 --batch-size 20
"""


def written(line: str) -> str:
    """A line of the page; a command with what it prints."""
    if not line.startswith("$ "):
        return line
    ran = subprocess.run(
        [sys.executable, "-m", "genwright", *line.split()[2:]], capture_output=True, text=True, check=False
    )
    said = (ran.stdout + ran.stderr).strip("\n")
    return f"```\n{line}\n{said}\n```"


def main() -> None:
    """Run every command and write the page."""
    page = "\n".join(map(written, WORDS.splitlines())).replace("```\n```\n", "")
    (DOCS / "estimate.md").write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
