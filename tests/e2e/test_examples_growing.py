"""From raw text to three small models, and one of them on to a domain without forgetting: shorter, on text made here."""

from __future__ import annotations

import json
import math
import random
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
MADE = shutil.ignore_patterns("data", "model", ".genwright", "report.html", "__pycache__")
FAMILIES = {"causal": "decoder", "masked": "encoder", "span-corruption": "encoder-decoder"}
LIBRARY = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "span-corruption": AutoModelForSeq2SeqLM}


def run(script: Path, *words: object) -> int:
    """A script as a person starts it, in this process."""
    before, sys.argv = sys.argv, [str(script), *map(str, words)]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
        sys.path.remove(str(script.parent))
        sys.modules.pop("make_model", None)
    return 0


def write_texts(folder: Path, words: list[str], files: int, seed: int) -> None:
    chance = random.Random(seed)
    folder.mkdir()
    for number in range(files):
        # the same words in every paragraph, so that all rows are of one length and few shapes have to be measured
        paragraphs = [" ".join([words[0], *chance.sample(2 * words, 2 * len(words))]) for _ in range(6)]
        (folder / f"{folder.name}-{number:02}.txt").write_text("\n\n".join(paragraphs))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of both examples, with data and models made by their own scripts from text made here."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("from-scratch", "domain"):
        shutil.copytree(EXAMPLES / name, folder / name, ignore=MADE)
    write_texts(
        folder / "text",
        [
            "the",
            "a",
            "red",
            "green",
            "house",
            "river",
            "stands",
            "runs",
            "near",
            "under",
            "old",
            "new",
            "cat",
            "dog",
            "sees",
            "likes",
        ],
        30,
        0,
    )
    write_texts(
        folder / "help",
        [
            "az",
            "vm",
            "disk",
            "create",
            "delete",
            "list",
            "storage",
            "account",
            "name",
            "group",
            "resource",
            "show",
            "update",
        ],
        30,
        1,
    )
    for name in ("text", "help"):
        assert (
            run(folder / "from-scratch" / "make_data.py", "--folder", folder / name, "--out", folder / f"{name}.jsonl")
            == 0
        )
    (folder / "both.jsonl").write_text((folder / "text.jsonl").read_text() + (folder / "help.jsonl").read_text())
    data = folder / "from-scratch" / "data" / "text.jsonl"
    data.parent.mkdir()
    shutil.copy(folder / "text.jsonl", data)
    assert run(folder / "from-scratch" / "make_model.py", "--data", folder / "both.jsonl") == 0
    return folder


def short(*more: str) -> list[str]:
    settings = ["adapt.steps=16", "adapt.batch_size=8", "adapt.precision=fp32", "data.validation_fraction=0.2", *more]
    return [word for setting in settings for word in ("--set", setting)]


def rung(told: dict, name: str) -> dict[str, float]:
    return told["summaries"]["evaluate"]["scores"][name]["bits-per-token"]


def test_rows_hold_every_paragraph_once(examples: Path) -> None:
    rows = [json.loads(line) for line in (examples / "text.jsonl").read_text().splitlines()]
    wanted = [part for path in sorted((examples / "text").iterdir()) for part in path.read_text().split("\n\n")]
    assert [part for row in rows for part in row["text"].split("\n\n")] == wanted
    assert {row["group"] for row in rows} == {path.name for path in (examples / "text").iterdir()}


def test_standard_library_has_enough_text() -> None:
    module = runpy.run_path(str(EXAMPLES / "from-scratch" / "make_data.py"))
    files = [(name, iter(list(parts))) for name, parts in module["library_paragraphs"](Path(json.__file__).parent)]
    assert {"__init__.py", "decoder.py", "encoder.py"} <= {name for name, _ in files}
    text = "\n".join(row["text"] for row in module["rows"](files))
    assert json.loads.__doc__.strip().splitlines()[0] in text and "def loads(s, *, cls=None" in text


@pytest.mark.parametrize("family", FAMILIES.values())
def test_tokenizer_writes_everything_and_has_what_each_objective_needs(examples: Path, family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(examples / "from-scratch" / "model" / family)
    text = "déjà vu → 雪 \t\n<pad"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    around = {"decoder": ([], []), "encoder": ([4], [5]), "encoder-decoder": ([], [2])}[family]
    assert tokenizer(text)["input_ids"] == [*around[0], *ids, *around[1]]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id) == (0, 2, 3)
    assert [tokenizer.convert_tokens_to_ids(f"<extra_id_{n}>") for n in (0, 99)] == [6, 105]
    assert len(tokenizer) <= 2048


@pytest.mark.parametrize("objective", FAMILIES)
def test_each_objective_learns(examples: Path, objective: str, genwright_here: Callable) -> None:
    """What knows nothing needs log2(2048) = 11 bits a token; after 16 steps the words of the text are known."""
    done = genwright_here(examples / "from-scratch" / objective, "apply", "--json", *short("data.test_fraction=0.2"))
    assert done.code == 0, done.told
    before, after = rung(done.json, "zero-shot"), rung(done.json, "full")
    assert 10.5 < before["value"] < 12.5  # a T5 starts with logits of some width
    assert after["value"] < before["value"] - 2
    model = LIBRARY[objective].from_pretrained(Path(done.json["artifacts"]["integrate"]) / "model")
    assert 1e6 < model.num_parameters() < 4e6


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_mixture_has_the_stated_share(share: float) -> None:
    mixed, size = (runpy.run_path(str(EXAMPLES / "domain" / "make_data.py"))[name] for name in ("mixed", "size"))
    domain = [{"text": f"d{number}" * 20, "group": ""} for number in range(300)]
    general = [{"text": f"g{number}" * (10 + number % 30), "group": ""} for number in range(900)]
    rows = mixed(domain, general, share)
    own = [row for row in rows if row["text"].startswith("d")]
    assert sorted(row["text"] for row in own) == sorted(row["text"] for row in domain)
    assert size(own) / size(rows) == pytest.approx(share, abs=0.005)
    assert rows == mixed(domain[::-1], general[::-1], share)


def test_domain_is_learned_and_the_rest_kept(examples: Path, genwright_here: Callable, capsys: Any) -> None:
    base, project = examples / "from-scratch" / "causal", examples / "domain"
    assert genwright_here(base, "apply", *short("data.test_fraction=0.2")).code == 0
    data = ["--domain", examples / "help.jsonl", "--domain-share", 0.5]
    assert run(project / "make_data.py", *data) == 0 and run(project / "make_model.py") == 0
    done = genwright_here(project, "apply", "--json", *short("adapt.learning_rate=3e-3"))
    assert done.code == 0, done.told
    capsys.readouterr()
    assert run(project / "judge.py", "--bound", 0.3) == 0, capsys.readouterr().out
    assert run(project / "judge.py", "--bound", -9) == 1
    assert_judges_agree(project, done.json)


def assert_judges_agree(project: Path, told: dict) -> None:
    """Plain `transformers` and ours, on the same texts."""
    sys.path.insert(0, str(project))
    judge = runpy.run_path(str(project / "judge.py"))
    sys.path.remove(str(project))
    sys.modules.pop("make_model", None)
    texts = [json.loads(line)["text"] for line in (project / "data" / "domain-test.jsonl").read_text().splitlines()]
    model = Path(told["artifacts"]["integrate"]) / "model"
    theirs = sum(judge["bits_per_byte"](model, [text]) for text in texts) / len(texts)
    assert told["summaries"]["evaluate"]["scores"]["full"]["bits-per-byte"]["value"] == pytest.approx(theirs, rel=1e-4)


def test_judge_counts_bits(tmp_path: Path, examples: Path) -> None:
    """A model whose logits are all alike says log2(V) bits for every token but the first, by hand."""
    folder = examples / "from-scratch" / "model" / "decoder"
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.nn.init.zeros_(model.model.norm.weight)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path)
    sys.path.insert(0, str(EXAMPLES / "domain"))
    judge = runpy.run_path(str(EXAMPLES / "domain" / "judge.py"))
    sys.path.remove(str(EXAMPLES / "domain"))
    sys.modules.pop("make_model", None)
    text = "the red house stands"
    tokens = len(tokenizer(text)["input_ids"])  # and the end of the text, less the first
    assert judge["bits_per_byte"](tmp_path, [text]) == pytest.approx(tokens * math.log2(2048) / len(text), rel=1e-5)
