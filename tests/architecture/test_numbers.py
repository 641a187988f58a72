"""A number in a page is the number in a result: what can be read from benchmarks/results is read from there.

Each claim is a sentence or a table's row as the page must have it, written from the JSON file that a benchmark left. Run a
benchmark again and this test says which sentence of which page is no longer true.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

Result = dict[str, Any]


def result(root: Path, name: str) -> Result:
    return dict(json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8")))


def claims_of_finetune(one: Result) -> list[str]:
    rows = {"TRL, its defaults (padded, recompute on)": "trl", "TRL with packing, recompute off": "trl-packed"}
    found = [
        f"| {words} | {_ratio(one['peers'][name])} | {one['loss']:.3f} · {one['peers'][name]['loss']:.3f} |"
        for words, name in rows.items()
    ]
    return [
        *found,
        f"({100 * one['floor_share']:.0f} in the earlier run)",
        f"on {one['date'][:10]}, {one['task']['steps']} steps of",
    ]


def claims_of_finetune_peers(one: Result) -> list[str]:
    rows = {
        "LitGPT 0.5.13": "litgpt", "LLaMA-Factory 0.9.5, recompute off": "llamafactory-tuned", "TRL with packing": "trl-packed",
        "torchtune 0.6.1": "torchtune",
    }  # fmt: skip
    found = [
        f"| {words} | {_ratio(one['peers'][name])} | {one['peers'][name]['loss']:.3f} |" for words, name in rows.items()
    ]
    return [
        *found,
        f"ours {one['loss']:.3f})",
        f"{100 * one['floor_share']:.0f} % of our time",
        f"by trial, {one['task']['steps']} steps",
    ]


def claims_of_methods(one: Result) -> list[str]:
    full, prompt, dpo = (one["methods"][name]["ratio"] for name in ("full", "prompt-tuning", "dpo"))
    return [
        f"full fine-tuning {full:.1f} times, prompt tuning {prompt:.1f} times,\nDPO {dpo:.1f} times as many learned tokens"
    ]


def claims_of_checkpoint(one: Result) -> list[str]:
    lora, full = one["measured"]["lora"], one["measured"]["full"]
    stalls = [100 * kind["stall_share_of_wall_time"] for kind in (lora, full)]
    return [
        f"A checkpoint every {one['save_every_seconds']:.0f} s stalls a LoRA run for {stalls[0]:.2f} % and a full run for {stalls[1]:.1f} % of\nits time",
        f"a full checkpoint of {full['checkpoint_bytes'] / 1e9:.1f} GB is written beside it, steps took {full['slowdown_of_steps']:.1f} times as long",
    ]


def claims_of_plan_accuracy(one: Result) -> list[str]:
    share = lambda value: f"{100 * value:.1f} %"
    table = {
        'training memory, where the source says "allocated"': "memory, active",
        "training step time, one machine and sharded": "step time, core",
    }
    found = [
        f"| {words} | {kind['rows']} | {share(kind['median'])} | {share(kind['p95'])} |"
        for words, kind in ((words, one["quantities"][name]) for words, name in table.items())
    ]
    first, further, fits = one["quantities"]["prefill"], one["quantities"]["decode"], one["fits"]
    cells = [
        f"{first['rows']} · {further['rows']}",
        *(f"{share(first[name])} · {share(further[name])}" for name in ("median", "p95")),
    ]
    found.append(f"| time to the first token · of each further one | {' | '.join(cells)} |")
    found.append(
        f"| fits or not | {fits['rows']:,} | {share(fits['right'])} right | {share(fits['fits_said_wrongly'])} said wrongly to fit |"
    )
    deepspeed, accelerate = one["baselines"]["DeepSpeed's estimators"], one["baselines"]["accelerate estimate-memory"]
    found.append(
        f"DeepSpeed's estimators miss by {100 * deepspeed['median']:.0f} % and `accelerate estimate-memory` by {100 * accelerate['median']:.0f} % at the median,"
        f" ours by {100 * deepspeed['ours']['median']:.0f} %"
    )
    return found


def claims_of_plan_time_extra(one: Result) -> list[str]:
    first = one["first, before anything was mended"]["summary"]
    first_token, further = (100 * first[name]["median"] for name in ("prefill", "decode"))
    late, mended = (
        one[f"float8, interleaving, experts: {when}"]["summary"]["training"] for when in ("first", "mended")
    )
    return [
        f"{first_token:.0f} %\n(first token) and {further:.0f} % (further tokens)",
        f"and {late['rows']} times of float8 and mixtures of experts by {100 * late['median']:.0f} %",
        f"and {100 * mended['median']:.0f} %. Of two ways",
    ]


def claims_of_plan_memory_extra(one: Result) -> list[str]:
    first, now = (one[when]["summary"] for when in ("first, before anything was mended", "now"))
    return [
        f"{first['rows']} published memory\nfigures were first missed by {100 * first['median']:.0f} %",
        f"these stand\nat {100 * now['median']:.0f} and",
    ]


README = {
    "finetune": claims_of_finetune,
    "finetune_peers": claims_of_finetune_peers,
    "methods": claims_of_methods,
    "checkpoint": claims_of_checkpoint,
    "plan_accuracy": claims_of_plan_accuracy,
    "plan_time_extra": claims_of_plan_time_extra,
    "plan_memory_extra": claims_of_plan_memory_extra,
}


@pytest.mark.parametrize("name", README)
def test_the_readme_says_what_was_measured(root: Path, name: str) -> None:
    page = (root / "README.md").read_text(encoding="utf-8")
    missing = [claim for claim in README[name](result(root, name)) if claim not in page]
    assert missing == [], f"README.md does not say this, which benchmarks/results/{name}.json has"


def claims_of_explain(one: Result) -> list[str]:
    missed, own = one["incompleteness"], one["own_row_first"]
    assert own["gradient_cosine"] == own["embedding_cosine"] == one["answers"]
    return [
        f"missed their sum by {100 * missed['median']:.1f} % in the median and {100 * missed['most']:.1f} % at most. Of {one['rows_compared']} training rows",
        f"came first in {own['gradient_cosine']} of {one['answers']}, by gradient and by embedding",
        f"An answer took {one['seconds_an_answer']:.0f} s",
        *(
            f"| {name} | {method['deletion_gain']:.2f} | {method['insertion_gain']:.2f} | {method['better_by_both']} of {one['answers']} |"
            for name, method in one["methods"].items()
        ),
    ]


def claims_of_work(one: Result) -> list[str]:
    """Every ratio of the table in docs/speed.md, by the page's own names of the methods."""
    ratio = {row["method"]: f"{row['ratio']:.3f}" for row in one["methods"]}
    named = (
        "evaluation",
        "full",
        "last-layers",
        "ia3",
        "prompt-tuning",
        "prefix-tuning",
        "masked",
        "span-corruption",
        "classification, full",
    )
    return [f"| {name} | {ratio[name]} |" for name in named if name in ratio]


def claims_of_plan_order(one: Result) -> list[str]:
    kinds, every = one["strategy or degrees"], one["any way to split the work"]
    return [
        f"{100 * kinds['right']:.0f}% of {kinds['pairs']} pairs that differ in strategy or degrees are ordered as measured, "
        f"{100 * every['right']:.0f}% of {every['pairs']}"
    ]


def claims_of_judge(one: Result) -> list[str]:
    ours, theirs = (one[who]["seconds"] for who in ("ours", "theirs"))
    parts = one["ratio_of_parts"]
    return [
        f"Of {one['rows']:,} rows of five sets",
        f"ours took {ours:.0f} s and lm-eval's, in its fastest of four batch sizes, {theirs:.0f} s: {one['ratio']:.1f} times",
        f"({min(parts):.1f} to {max(parts):.1f} in four parts, in turn), {one['flops_ratio']:.1f} times fewer FLOPs; "
        f"{one['same_answers']:,} of {one['rows']:,} answers",
    ]


def claims_of_plan_cpu(one: Result) -> list[str]:
    plan, curves = (one["summary"][name] for name in ("plan_error", "estimate_error"))
    return [
        f"`genwright plan` {100 * plan['median']:.1f} % at the median, {100 * plan['p90']:.1f} % at the 90th percentile; calibrated by a "
        f"minute's curves {100 * curves['median']:.1f} and {100 * curves['p90']:.1f} % (asked"
    ]


def claims_of_serve_soak(one: Result) -> list[str]:
    assert one["passed"] and not any(one[name] for name in ("wrong_expert", "unaccounted", "lost"))
    done, left, busy = (one["outcomes"].get(name, 0) for name in ("done", "left", "503"))
    return [
        f"Soak of {one['minutes']:.0f} minutes", f"every 10 s ({one['swaps']} times)", f"every 5 minutes ({one['kills']} times)",
        f"Of {one['requests']:,} requests {done:,}\nwere answered, {left} left and {busy} was told 503",
        f"the last quarter {one['memory_growth_percent']:.1f}% above",
    ]  # fmt: skip


def claims_of_serve_throughput(one: Result) -> list[str]:
    ratios = [100 * each for each in one["ratios"]]
    return [
        f"{len(ratios)} turns of ten seconds each: {100 * one['ratio']:.1f}%, standard error {100 * one['standard_error']:.1f}\n"
        f"({min(ratios):.0f} to {max(ratios):.0f}; asked: 97)"
    ]


def claims_of_serve_overhead(one: Result) -> list[str]:
    cell = lambda name: " · ".join(f"{one[kind][name]:.2f} ms" for kind in ("whole", "stream"))
    return [f"{cell('p50_ms')} | {cell('p99_ms')} |", f"{one['whole']['requests']:,} requests a row"]


def claims_of_redteam(one: Result) -> list[str]:
    cell = lambda found: f"{found['reached']} of {found['goals']} ({found['low']:.0f} to {found['high']:.0f} %)"
    ours, theirs = (one["found"][name]["attacks"] for name in ("built in", "strongreject"))
    over, crows = one["found"]["built in"]["over_refusal"], one["probes"]["crows_pairs"]
    return [
        *(f"| {name} | {cell(ours[name])} | {cell(theirs[name])} |" for name in ours),
        f"Of {over['prompts']} harmless look-alikes {over['refused']} was refused",
        f"in {crows['prefers_stereotype']:.0f} % ({crows['low']:.0f} to {crows['high']:.0f} %)",
        f"{one['probes']['bbq']['rows']} questions: {one['probes']['bbq']['accuracy']:.0f} % right",
    ]


PAGES = {
    "serve_overhead": ("serving.md", claims_of_serve_overhead),
    "judge": ("evaluate.md", claims_of_judge),
    "plan_cpu": ("plan-time.md", claims_of_plan_cpu),
    "serve_soak": ("serving.md", claims_of_serve_soak),
    "serve_throughput": ("serving.md", claims_of_serve_throughput),
    "serve_overhead_router_guard": ("serving.md", claims_of_serve_overhead),
    "serve_startup": ("serving.md", lambda one: [f"{one['median']:.2f} s after it is started"]),
    "explain": ("explain.md", claims_of_explain),
    "redteam": ("redteam.md", claims_of_redteam),
    "work": ("speed.md", claims_of_work),
    "plan_order": ("plan-time.md", claims_of_plan_order),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_was_measured(root: Path, name: str) -> None:
    file, claims = PAGES[name]
    page = (root / "docs" / file).read_text(encoding="utf-8")
    missing = [claim for claim in claims(result(root, name)) if claim not in page]
    assert missing == [], f"docs/{file} does not say this, which benchmarks/results/{name}.json has"


@pytest.mark.parametrize(
    ("script", "page"), [("precision", "precision.md"), ("plan_accuracy_page", "plan-accuracy.md")]
)
def test_a_written_page_is_what_its_script_writes(
    root: Path, monkeypatch: pytest.MonkeyPatch, script: str, page: str
) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    module = __import__(script)
    table = module.table(result(root, script.removesuffix("_page")))
    assert table in (root / "docs" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "docs/*.md", "benchmarks/README.md", "examples/**/README.md"]
)
def test_every_file_that_a_number_is_said_to_be_in_exists(root: Path, name: str) -> None:
    said = {
        path
        for page in root.glob(name)
        for path in re.findall(
            r"`((?:benchmarks|examples|tests|docs)/[\w./-]+\.(?:py|json|csv|md))`", page.read_text(encoding="utf-8")
        )
    }
    assert [path for path in sorted(said) if not (root / path).exists()] == []


def _ratio(one: Result) -> str:
    return f"{one['ratio']:.1f} ({one['ratio_low']:.1f} to {one['ratio_high']:.1f})"
