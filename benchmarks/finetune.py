"""Genwright against other trainers, in turn, on the demo's rows: learned tokens per second, and held-out losses.

    python benchmarks/finetune.py --peers trl,trl-packed --repeats 3 --out result.json

Needs an environment with Genwright (`make test` makes .venv; this script finds it). A peer's environment is made on
first use under benchmarks/peers/. README.md says how every number is obtained and where the traps are.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from compare import floor_share, our_result, peer_result, table, tokens_in_median_step, tokens_per_second

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEMO = ROOT / "examples" / "cloud-commands"
TRIAL_STEPS = 5
"""Steps of the trial that picks a peer's precision, where nobody named one."""
USUAL_TOKENS = 75
"""Of one of the demo's rows; gives matmul_rate.py the shape of a step."""


@dataclass(frozen=True)
class Peer:
    """A way to train with another trainer."""

    folder: str
    """Below benchmarks/peers/: requirements.txt and run.py."""
    options: dict[str, Any]
    precisions: tuple[str, ...]
    """Tried before the measurement; the fastest is used."""


ALL_PRECISIONS = ("bf16-weights", "bf16-autocast", "fp32")
PEERS = {
    # What the documentation leads to: SFTTrainer(model="...", peft_config=LoraConfig(...)), with its recompute.
    "trl": Peer("trl", {"gradient_checkpointing": True}, ("bf16-autocast", "fp32")),
    "trl-packed": Peer("trl", {"gradient_checkpointing": False, "packing": True}, ALL_PRECISIONS),
    # What somebody who looks for speed ends with.
    "trl-tuned": Peer("trl", {"gradient_checkpointing": False}, ALL_PRECISIONS),
    "trl-padding-free": Peer("trl", {"gradient_checkpointing": False, "padding_free": True}, ALL_PRECISIONS),
    # Other trainers; peers/README.md says what each is given. Recompute is LLaMA-Factory's default.
    "litgpt": Peer("litgpt", {}, ALL_PRECISIONS),
    "torchtune": Peer("torchtune", {}, ("bf16-weights", "fp32")),
    "llamafactory": Peer("llamafactory", {"gradient_checkpointing": True}, ("bf16-autocast", "fp32")),
    "llamafactory-tuned": Peer("llamafactory", {"gradient_checkpointing": False}, ("bf16-autocast", "fp32")),
}


# --- environments ----------------------------------------------------------------------------------------------------


def use_genwright() -> None:
    """Go on in an environment that has Genwright: this one, or the tree's .venv."""
    if importlib.util.find_spec("genwright"):
        return
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == ROOT / ".venv":
        sys.exit("genwright is not installed here. Do: `make .venv/installed`, then run this again.")
    os.execv(python, [str(python), *sys.argv])


def python_of(peer: Peer) -> Path:
    """The peer's interpreter, with exactly the packages of its requirements.txt; made, or made again, if need be."""
    folder = HERE / "peers" / peer.folder
    wanted = hashlib.sha256((folder / "requirements.txt").read_bytes()).hexdigest()
    python, stamp = folder / ".venv" / "bin" / "python", folder / ".venv" / "requirements.sha256"
    if not (stamp.exists() and stamp.read_text() == wanted):
        say(f"making {folder.relative_to(ROOT)}/.venv (a few minutes, once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / ".venv")], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--progress-bar", "off"]
        # torch first and alone: when its build is settled, nothing pulls another.
        torch = [line for line in (folder / "requirements.txt").read_text().splitlines() if line.startswith("torch==")]
        for packages in ([*torch], ["-r", str(folder / "requirements.txt")]):
            if packages:
                subprocess.run([*pip, *packages], check=True)
        stamp.write_text(wanted)
    return python


# --- the task --------------------------------------------------------------------------------------------------------


def demo_rows(path: Path | None) -> list[dict[str, str]]:
    """The rows of a JSONL file with prompt, completion and group; the demo's own, made where they are not."""
    if path is None:
        path = DEMO / "data" / "az.jsonl"
        if not path.exists():
            subprocess.run([sys.executable, str(DEMO / "make_data.py")], check=True, stdout=sys.stderr)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or not {"prompt", "completion"} <= rows[0].keys():
        sys.exit(f"{path} has no rows of prompt and completion.")
    return rows


def is_held_out(row: dict[str, str]) -> bool:
    """A tenth of the groups, by hash: no command path is on both sides."""
    group = row.get("group") or row["prompt"]
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % 10 == 0


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """JSON lines of prompt and completion."""
    kept = [{key: row[key] for key in ("prompt", "completion")} for row in rows]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")


def model_folder(name: str) -> Path:
    """A plain model folder from a catalogue name or a model source."""
    if (Path(name) / "config.json").exists():
        return Path(name).resolve()
    from genwright.models.sources import cache_folder, fetch, locate

    return fetch(locate(name, base=Path.cwd()), cache_folder(), offline=False, say=say).resolve()


def task_of(options: argparse.Namespace, work: Path, *, num_rows: int, steps: int, seed: int) -> dict[str, Any]:
    """What every side is asked to do, with the rows of every step written out."""
    from genwright.data.order import rows_of_step

    shape = {"num_rows": num_rows, "rows_per_step": options.rows_per_step, "seed": seed}
    order = [[int(row) for row in rows_of_step(step, **shape)] for step in range(steps)]
    return {
        "model": str(options.model), "rows": str(work / "train.jsonl"), "order": order, "steps": steps,
        "rows_per_step": options.rows_per_step, "learning_rate": options.learning_rate, "schedule": "cosine",
        "weight_decay": 0.0, "max_norm": 1.0, "seed": seed,
        "lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"},
    }  # fmt: skip


# --- runs ------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def asked(command: list[str]) -> dict[str, Any]:
    """The JSON that a process prints."""
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def train(side: str, task: dict[str, Any], out: Path) -> dict[str, Any]:
    """One side's training in its own process and environment; what it measured."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "task.json").write_text(json.dumps(task))
    script = HERE / "ours.py" if side == "ours" else HERE / "peers" / PEERS[side].folder / "run.py"
    python = sys.executable if side == "ours" else str(python_of(PEERS[side]))
    load = os.getloadavg()[0]
    done = subprocess.run([python, str(script), str(out / "task.json"), str(out)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return {**json.loads((out / "run.json").read_text()), "load_before": round(load, 2)}


def matmul_rate(options: argparse.Namespace, tokens: int) -> dict[str, Any]:
    """The machine's bf16 rate in this moment."""
    command = [sys.executable, str(HERE / "matmul_rate.py"), "--model", str(options.model), "--tokens", str(tokens)]
    return asked([*command, "--seconds", "3"])


def held_out_loss(options: argparse.Namespace, work: Path, adapter: Path | None) -> dict[str, Any]:
    """The independent judge's loss of a saved adapter, or of the model as it is."""
    judged = ["--model", str(options.model), "--rows", str(work / "held-out.jsonl")]
    return asked(
        [sys.executable, str(HERE / "held_out.py"), *judged, *(["--adapter", str(adapter)] if adapter else [])]
    )


def pick_precision(side: str, options: argparse.Namespace, work: Path, num_rows: int) -> tuple[str, dict[str, float]]:
    """The peer's fastest precision on this machine, by the median step of a short trial, and all that were tried."""
    if options.precision:
        return options.precision, {}
    task = task_of(options, work, num_rows=num_rows, steps=TRIAL_STEPS, seed=0)
    tried = {}
    for precision in PEERS[side].precisions:
        out = work / f"trial-{side}-{precision}"
        run = train(side, {**task, "peer": {**PEERS[side].options, "precision": precision}}, out)
        tried[precision] = round(tokens_in_median_step(run), 1)
        say(f"  {side} in {precision}: {tried[precision]} learned tokens/s")
    return max(tried, key=lambda name: tried[name]), tried


def one_round(
    number: int, peers: dict[str, dict[str, Any]], options: argparse.Namespace, work: Path, num_rows: int
) -> dict[str, Any]:
    """Every side once, one after another; who begins changes from round to round."""
    task = task_of(options, work, num_rows=num_rows, steps=options.steps, seed=number)
    sides = ["ours", *peers]
    turn = number % len(sides)
    runs: dict[str, Any] = {}
    for side in sides[turn:] + sides[:turn]:
        out = work / f"round-{number}" / side
        run = train_ours(task, out, options) if side == "ours" else train(side, {**task, "peer": peers[side]}, out)
        run["held_out"] = held_out_loss(options, work, out / "adapter")
        runs[side] = run
        speed, loss = tokens_per_second(run), run["held_out"]["loss"]
        say(f"round {number + 1}, {side}: {speed:.1f} learned tokens/s, held-out loss {loss:.4f}")
    return runs


def train_ours(task: dict[str, Any], out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our training, with the machine's matmul rate measured right before and right after it."""
    tokens = options.rows_per_step * USUAL_TOKENS
    before = matmul_rate(options, tokens)
    run = train("ours", task, out)
    return run | floor_share(run, before, matmul_rate(options, tokens))


# --- the whole -------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="trl,trl-packed", help=f"with commas, of: {', '.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "finetune.json")
    parser.add_argument("--data", type=Path, help="JSONL of prompt, completion and group (default: the demo's rows)")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="catalogue name, model source or folder")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of every run")
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="the demo's")
    parser.add_argument("--held-out", type=int, default=96, help="most held-out rows to judge by")
    parser.add_argument("--precision", choices=ALL_PRECISIONS, help="of the peers (default: the fastest, by trial)")
    parser.add_argument("--keep", type=Path, help="keep tasks, runs and adapters in this folder")
    chosen = parser.parse_args()
    chosen.peers = [name.strip() for name in chosen.peers.split(",") if name.strip()]
    unknown = [name for name in chosen.peers if name not in PEERS]
    if unknown:
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return chosen


def prepare(options: argparse.Namespace, work: Path) -> dict[str, int]:
    """Rows written, model fetched, environments made. Returns how many rows there are of each kind."""
    rows = demo_rows(options.data)
    train_rows = [row for row in rows if not is_held_out(row)]
    held_out = [row for row in rows if is_held_out(row)][: options.held_out]
    write_rows(work / "train.jsonl", train_rows)
    write_rows(work / "held-out.jsonl", held_out)
    options.model_name, options.model = str(options.model), model_folder(options.model)
    for side in options.peers:
        python_of(PEERS[side])
    return {"train": len(train_rows), "held_out": len(held_out)}


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Prepare, try precisions, run the rounds; the result, ready for JSON."""
    began = time.perf_counter()
    rows = prepare(options, work)
    peers, tried = {}, {}
    for side in options.peers:
        precision, tried[side] = pick_precision(side, options, work, rows["train"])
        peers[side] = {**PEERS[side].options, "precision": precision}
    rounds = [one_round(number, peers, options, work, rows["train"]) for number in range(options.repeats)]
    compared = {side: peer_result(rounds, side) for side in peers}
    for side, entry in compared.items():
        entry |= {"options": peers[side], "precisions_tried": tried[side]}
    return {
        "peers": compared, **our_result(rounds), "untrained_loss": held_out_loss(options, work, None)["loss"],
        "task": {
            "model": options.model_name, "steps": options.steps, "rows_per_step": options.rows_per_step, "rows": rows,
            "learning_rate": options.learning_rate, "schedule": "cosine", "lora": "rank 16, alpha 32, all-linear",
        },
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def main() -> int:
    """0, or 1 when a side did not do the same work: the result is written, and says so."""
    options = arguments()
    use_genwright()
    with tempfile.TemporaryDirectory(prefix="genwright-benchmark-") as temporary:
        work = (options.keep or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        found = measure(options, work)
    machine.write_result(options.out, **found)
    print(table(found))
    print(f"written to {options.out}")
    return 1 if any(peer["unequal"] for peer in found["peers"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
