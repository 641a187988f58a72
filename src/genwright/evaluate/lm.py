"""lm-eval's tasks on our scorer: a model object for `lm_eval.simple_evaluate`, and a task folder for a local JSONL file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from genwright.base.errors import BadRequest, MissingExtra
from genwright.base.files import write_atomic
from genwright.evaluate.forms import Form, Options, Row, Scored, Target


class Scorer(Protocol):
    """What lm-eval asks: a `score.Scorer`, or a target of suites."""

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """`nats` and `greedy` of each (context, answer)."""

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Of each whole text, nats."""

    def continuations(self, texts: Sequence[str], stops: Sequence[str], max_tokens: int) -> list[str]:
        """Greedily, each cut before its first stop."""


def language_model(scorer: Scorer) -> Any:
    """Our scorer as lm-eval's `LM`: loglikelihood, loglikelihood_rolling, generate_until. Errors: MissingExtra."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingExtra("lm-eval", "judge", "Running lm-eval's tasks") from None

    class Ours(LM):
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

    found = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=_manager(folder, tasks), limit=limit, bootstrap_iters=0, log_samples=True
    )  # fmt: skip
    return {name: found[name] for name in ("results", "samples", "higher_is_better")}


def _manager(folder: Path, tasks: Sequence[str]) -> Any:
    """lm-eval's manager of a folder that has these tasks; none of lm-eval's own. Errors: MissingExtra; BadRequest."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingExtra("lm-eval", "judge", "Running lm-eval's tasks") from None
    if not Path(folder).is_dir():
        raise BadRequest(f"There is no folder {folder}.", wanted="a folder of lm-eval's YAML files")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    missing = sorted(set(tasks) - set(manager.all_tasks))
    if missing:
        raise BadRequest(
            f"{folder} has no task {', '.join(missing)}.", wanted=", ".join(sorted(manager.all_tasks)) or "a YAML file"
        )
    return manager


def task_rows(folder: Path, own: Mapping[str, Any]) -> list[Row]:
    """The documents that a task is judged on. Errors: MissingExtra; BadRequest."""
    manager = _manager(folder, [own["task"]] if own["task"] else [])
    names = [own["task"]] if own["task"] else manager.all_subtasks
    if len(names) != 1:
        raise BadRequest(
            f"{folder} does not have one task.", wanted=f"task = one of {', '.join(sorted(names))}", found=f"{len(names)} tasks"
        )  # fmt: skip
    task = manager.load([names[0]])["tasks"][names[0]]
    return [{"folder": str(folder), "task": names[0], "document": document} for document in task.eval_docs]


def run_task(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """lm-eval's loop over one task's first documents. A metric of sums, such as perplexity, is scored in nats a unit."""
    folder, task = rows[0]["folder"], rows[0]["task"]
    found = run_tasks(target, Path(folder), [task], len(rows))
    samples = sorted(found["samples"][task], key=lambda one: one["doc_id"])
    samples = [one for one in samples if one["filter"] == samples[0]["filter"]]
    metrics = samples[0]["metrics"]
    metric = options.metric or metrics[0]
    if metric not in metrics:
        raise BadRequest(f"The task {task} does not measure {metric}.", wanted=", ".join(metrics))
    values = [one[metric] for one in samples]
    also = {
        name.partition(",")[0]: float(value) for name, value in found["results"][task].items()
        if isinstance(value, float) and "_stderr" not in name
    }  # fmt: skip
    answers = [json.dumps(one["filtered_resps"], default=str) for one in samples]
    if isinstance(values[0], tuple | list):
        return Scored([-nats / size for nats, size in values], answers, also, [size for _, size in values], True)
    lower = not found["higher_is_better"][task].get(metric, True)
    return Scored([100.0 * float(value) for value in values], answers, also, lower_is_better=lower)


TASK = Form(
    "lm-eval", {}, (), run_task, {"task": ""}, read=task_rows, asks=("likelihoods", "rolling", "continuations"), percent=False
)  # fmt: skip


FORMS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{prompt}}", "doc_to_choice": "choices", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "generation": {
        "output_type": "generate_until", "doc_to_text": "prompt", "doc_to_target": "reference",
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {"name": "none", "filter": [{"function": "regex", "regex_pattern": "(?s)^.*$"}, {"function": "take_first"}]}
        ],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
}  # fmt: skip
"""What a suite's form is called in lm-eval. Its filter `regex` also takes surrounding white space away, as our exact match does."""


def write_task(suite: Any, folder: Path) -> Path:
    """Write suite.name.yaml and its rows to a folder that `lm_eval --include_path` reads offline. Errors: BadRequest.

    What is written is what lm-eval can say: texts, not conversations; exact match.
    """
    if suite.form.name not in FORMS:
        raise BadRequest(f"lm-eval has no tasks of the form '{suite.form.name}'.", wanted=" or ".join(FORMS))
    if any(not isinstance(row.get("prompt", ""), str) for row in suite.rows):
        raise BadRequest(
            f"{suite.name} asks conversations.", wanted="rows whose prompt is a text: a task of lm-eval has no turns"
        )
    rows = Path(folder).resolve() / f"{suite.name}.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    bare = lambda row: {**row, "reference": row["reference"].strip()} if "reference" in row else row
    write_atomic(rows, "".join(json.dumps(bare(row), ensure_ascii=False) + "\n" for row in suite.rows))
    task = {
        "task": suite.name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test",
        **FORMS[suite.form.name],
    }  # fmt: skip
    if suite.form.name == "generation":
        own = suite.own
        task["generation_kwargs"] = {"until": list(own["stops"]), "max_gen_toks": own["max_tokens"], "do_sample": False}
    path = rows.with_suffix(".yaml")
    write_atomic(path, json.dumps(task, indent=1))  # JSON is YAML
    return path
