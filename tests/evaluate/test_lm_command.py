"""lm-eval's own command on an exported model folder says what our suites say of it, to the last digit that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.e2e.tiny import COLOURS, model, write_model

from genwright.evaluate.lm import write_task
from genwright.evaluate.suites import Suite, evaluate, read_suites
from genwright.evaluate.target import Opened
from genwright.export.merge import merge_adapter
from genwright.talk import open_session

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.proof

ROWS: dict[str, list[dict[str, Any]]] = {
    "choice": [
        {"prompt": f"the {colour} house number {n} stands near the", "choices": COLOURS, "answer": n % 4}
        for n, colour in enumerate(COLOURS * 6)
    ],
    "generation": [{"prompt": f"the {colour} house", "reference": " number"} for colour in COLOURS],
    "perplexity": [{"text": f"the {colour} house stands near the river\n" * 9} for colour in COLOURS],
}
KEYS = {"generation": 'chat = false\nmax_tokens = 6\nstops = ["\\n"]\n'}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a LoRA adapter merged by the kit's own export."""
    base = tmp_path_factory.mktemp("exported")
    write_model(base / "base", "decoder")
    torch.manual_seed(5)
    adapted = get_peft_model(
        model("decoder"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(base / "adapter")
    merge_adapter(base / "base", base / "adapter", base / "merged", say=len)
    return base / "merged"


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> list[Suite]:
    folder, made = tmp_path_factory.mktemp("suites"), []
    for form, rows in ROWS.items():
        (folder / f"{form}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"own_{form}.toml").write_text(f'form = "{form}"\nfile = "{form}.jsonl"\n{KEYS.get(form, "")}')
        made += read_suites(folder / f"own_{form}.toml")
    return made


def test_the_command_says_what_our_suites_say(exported: Path, suites: list[Suite], tmp_path: Path) -> None:
    for suite in suites:
        write_task(suite, tmp_path / "tasks")
    names = ",".join(suite.name for suite in suites)
    words = ["run", "--model", "hf", "--model_args", f"pretrained={exported},dtype=float32", "--device", "cpu", "--tasks", names,
             "--include_path", str(tmp_path / "tasks"), "--batch_size", "1", "--output_path", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "lm_eval", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())["results"]

    target = Opened("exported", lambda: open_session(f"folder:{exported}", base=tmp_path, precision="fp32"))
    found = evaluate(suites, [target], say=len)["suites"]
    ours = {suite["name"]: suite["systems"]["exported"] for suite in found}
    assert ours["own_choice"]["value"] == 100 * theirs["own_choice"]["acc,none"]
    assert ours["own_choice"]["also"]["acc_norm"] == 100 * theirs["own_choice"]["acc_norm,none"]
    assert ours["own_generation"]["value"] == 100 * theirs["own_generation"]["exact_match,none"]
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert ours["own_perplexity"]["also"][name] == pytest.approx(theirs["own_perplexity"][f"{name},none"], rel=2e-6)
    for name in ("byte_perplexity", "bits_per_byte"):
        assert f"{ours['own_perplexity']['also'][name]:.4f}" == f"{theirs['own_perplexity'][f'{name},none']:.4f}"

    task = tmp_path / "as_task.toml"
    task.write_text('form = "lm-eval"\nfile = "tasks"\ntask = "own_choice"\n')
    through = evaluate(read_suites(task), [target], say=len)["suites"][0]["systems"]["exported"]
    assert through["value"] == ours["own_choice"]["value"] and through["scores"] == ours["own_choice"]["scores"]
