"""lm-eval's tasks on our scorer: a model object for `lm_eval.simple_evaluate`, and a task folder for a local JSONL file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, MissingExtra
from genwright.base.files import write_atomic
from genwright.evaluate.score import Scorer


def language_model(scorer: Scorer) -> Any:
    """Our scorer as lm-eval's `LM`: loglikelihood, loglikelihood_rolling, generate_until. Errors: MissingExtra."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingExtra("lm-eval", "judge", "Running lm-eval's tasks") from None

    class Ours(LM):
        tokenizer_name = str(getattr(scorer.tokenizer, "name_or_path", "")).replace("/", "__")

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            found = scorer.likelihoods([one.args for one in requests])
            return [(one.nats, one.greedy) for one in found]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return scorer.rolling([one.args[0] for one in requests])

        def generate_until(self, requests: list[Any]) -> list[str]:
            return _generated(scorer, [one.args for one in requests])

    return Ours()


def _generated(scorer: Scorer, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Contexts with the same options are continued together."""
    ways = [_way(options) for _, options in asked]
    found = [""] * len(asked)
    for way in dict.fromkeys(ways):
        rows = [row for row, one in enumerate(ways) if one == way]
        for row, text in zip(rows, scorer.continuations([asked[row][0] for row in rows], *way)):
            found[row] = text
    return found


LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What lm-eval calls the longest answer; the first that is given counts, else 256."""


def _way(options: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """(stops, longest answer) of a request. Errors: BadRequest for sampling."""
    warm = float(options.get("temperature") or 0.0) > 0
    if options.get("do_sample", warm):
        raise BadRequest("Suites are answered greedily.", wanted="do_sample: false", found=str(options))
    until = options.get("until") or []
    length = next((options[name] for name in LENGTHS if options.get(name) is not None), 256)
    return tuple([until] if isinstance(until, str) else until), int(length)


def run_tasks(scorer: Scorer, folder: Path, tasks: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """lm-eval's own loop over tasks of a folder of YAML files, answered by us. Errors: MissingExtra; BadRequest."""
    model = language_model(scorer)
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    missing = sorted(set(tasks) - set(manager.all_tasks))
    if missing:
        raise BadRequest(
            f"{folder} has no task {', '.join(missing)}.", wanted=", ".join(sorted(manager.all_tasks)) or "a YAML file"
        )
    found = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
    )
    return {"results": found["results"], "samples": found["samples"]}


FORMS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{prompt}}", "doc_to_choice": "{{choices}}", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "generation": {
        "output_type": "generate_until", "doc_to_text": "{{prompt}}", "doc_to_target": "{{reference}}",
        "metric_list": [{"metric": "exact_match"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
}  # fmt: skip
"""What a suite's form is called in lm-eval."""


def write_task(suite: Any, folder: Path) -> Path:
    """Write suite.name.yaml and its rows to a folder that `lm_eval --include_path` reads offline. Errors: BadRequest."""
    if suite.form not in FORMS:
        raise BadRequest(f"lm-eval has no tasks of the form '{suite.form}'.", wanted=" or ".join(FORMS))
    rows = Path(folder).resolve() / f"{suite.name}.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in suite.rows))
    task = {
        "task": suite.name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test",
        **FORMS[suite.form],
    }  # fmt: skip
    if suite.form == "generation":
        task["generation_kwargs"] = {"until": list(suite.stops), "max_gen_toks": suite.max_tokens, "do_sample": False}
    path = rows.with_suffix(".yaml")
    write_atomic(path, json.dumps(task, indent=1))  # JSON is YAML
    return path
