"""Forget some rows, keep others, and measure both: one training, asked before and after, and attacked afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, Interrupted, ModelError
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.data.quality import text_of
from genwright.data.repeats import normalised
from genwright.data.sources import files_of, read_rows, records_of
from genwright.engine.build import Built, build
from genwright.engine.columns import with_columns
from genwright.engine.loop import train
from genwright.engine.optim import adamw
from genwright.engine.recipe import Recipe, describe
from genwright.evaluate.forget import Fact, Witness, facts_of, ks_test, steps_to_come_back, utility
from genwright.evaluate.statistics import paired
from genwright.evaluate.suites import Judged, Suite, asked, foretold, read_suites, told
from genwright.evaluate.target import InMemory
from genwright.improve.solution import write_solution
from genwright.models.load import load_model, load_tokenizer
from genwright.models.sources import cache_folder, cached, locate
from genwright.models.tokenizer_files import copy_tokenizer
from genwright.precision.policy import resolve
from genwright.project.store import Store

METHODS = ("gradient-ascent", "gradient-difference", "npo", "rmu", "generic-targets")
MAX_TOKENS = 512
ALIKE = 0.05
"""The p-value from which on truth ratios cannot be told from those of a model that never saw the rows."""

Say = Callable[[str], Any]
Results = Mapping[str, Mapping[str, Judged]]


@dataclass(frozen=True)
class Request:
    """What to forget, what to keep, and how."""

    model: Path
    forget: Path
    retain: Path
    also: tuple[Path, ...] = ()
    """Other sets that must not be harmed, such as general questions; they are measured, never trained on."""
    suites: tuple[Path, ...] = ()
    """Files of suites: benchmarks that are asked before and after."""
    texts: Path | None = None
    """Texts whose bits a token are told before and after."""
    never_saw: Path | None = None
    """A model that was trained without the rows to forget."""
    method: str = "npo"
    settings: tuple[tuple[str, Any], ...] = ()
    """Of the method's equation."""
    adapter: str = "full"
    steps: int = 60
    batch_size: int = 16
    learning_rate: float = 0.0
    precision: str = "fp32"
    keep: float = 0.9
    """The share of what the sets to keep, and the suites, scored before that must be left."""
    relearn_steps: int = 10
    seed: int = 0


def unlearn(
    request: Request, out: Path, say: Say = lambda text: None, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train, measure, write the model to `out`, and return the report.

    Errors: BadRequest before anything is loaded; Interrupted where `stop` says so, and nothing is kept.
    """
    forget, retain, sets = read(request)
    suites = [suite for file in request.suites for suite in read_suites(file)]
    for suite in suites:
        say(foretold(suite))
    recipe = recipe_of(request)
    tokenizer = load_tokenizer(request.model)
    rows = [*(replace(fact.row(), forget=True) for fact in forget), *(fact.row() for fact in retain)]
    feed = feed_of(rows, Setting(recipe.objective, tokenizer, "decoder", MAX_TOKENS), _pad(tokenizer))
    built = build(recipe, lambda dtype, attention: load_model(request.model, dtype=dtype, attention=attention))
    witness = Witness(built.model, tokenizer)
    say("asking the model before it forgets")
    texts = _texts(request)
    ask = lambda name: asked(suites, InMemory(name, built.model.eval(), tokenizer), seed=request.seed, say=say)
    before, benchmarks = measured(witness, forget, sets, texts), {"before": ask("before")}
    began = time.perf_counter()
    losses = _trained(request, recipe, built, balanced(feed, len(forget)), tokenizer, say, stop)
    seconds = time.perf_counter() - began
    say("asking it again")
    after = measured(witness, forget, sets, texts)
    benchmarks["after"] = ask("after")
    save(recipe, request.model, built, out)
    say("teaching a part again")
    relearned = {"unlearned": relearn(request, built, tokenizer, forget)}
    never = asked_of_the_other(request, tokenizer, forget, sets, relearned) if request.never_saw else None
    return _report(request, recipe, before, after, never, relearned) | {
        "benchmarks": compared(suites, benchmarks, request.keep) if suites else {},
        "losses": losses, "seconds": seconds, "model": str(out / recipe.adapter.form),
        "forget_rows": len(forget), "retain_rows": len(retain),
    }  # fmt: skip


def folder_of(name: str, base: Path) -> Path:
    """The model folder behind a name: a project's handed-over model, or a catalogue name or source that is on disk.

    Errors: BadRequest for a project without a result, ModelError.
    """
    if (base / name / "genwright.toml").exists():
        made = Store(base / name / ".genwright").latest("integrate")
        if made is None:
            raise BadRequest(f"The project in {base / name} has no model yet.", do="run `genwright apply` there first")
        if not (made / "model").exists():
            raise BadRequest(
                f"The project in {base / name} handed over an adapter.", wanted="a model of its own",
                do="name the base as --model, or train with a method that is merged",
            )  # fmt: skip
        return made / "model"
    folder = cached(locate(name, base=base), cache_folder())
    if folder is None:
        raise ModelError(f"{name} is not on disk yet.", do=f"genwright models pull {name}")
    return folder


def read(request: Request) -> tuple[list[Fact], list[Fact], dict[str, list[Fact]]]:
    """Facts to forget, facts to keep, and the sets that are measured, by file name. Errors: BadRequest, DataError."""
    if request.method not in METHODS:
        raise BadRequest("That is no way to unlearn.", wanted=", ".join(METHODS), found=request.method)
    if request.steps < 1 or request.batch_size < 2 or not 0 < request.keep <= 1 or request.relearn_steps < 0:
        raise BadRequest(
            "These settings make no sense.",
            wanted="--steps of 1 or more, --batch-size of 2 or more, --keep above 0 and at most 1",
        )
    forget, retain = facts(request.forget), facts(request.retain)
    sets = {request.retain.stem: retain} | {path.stem: facts(path) for path in request.also}
    for kept in sets.values():
        refuse_overlap(forget, kept)
    return forget, retain, sets


def facts(path: Path) -> list[Fact]:
    """The rows of a file. TOFU's names for question and answer are known too."""
    records = [value for file in files_of(path) for _, value in records_of(file)]
    tofu = bool(records) and {"question", "answer"} <= set(records[0]) and "prompt" not in records[0]
    columns = {"prompt": "question", "completion": "answer"} if tofu else {}
    return facts_of(read_rows(path, columns=columns).rows, records)


def refuse_overlap(forget: Sequence[Fact], retain: Sequence[Fact]) -> None:
    """Errors: BadRequest naming the rows that are to be both forgotten and kept."""
    kept = {_said(fact): fact for fact in retain}
    both = [(fact, kept[_said(fact)]) for fact in forget if _said(fact) in kept]
    if both:
        named = "; ".join(f"{one.place} is {other.place}" for one, other in both[:5])
        raise BadRequest(
            f"{len(both)} rows are to be forgotten and to be kept.", wanted="each question in one of the two files",
            found=named + (f"; and {len(both) - 5} more" if len(both) > 5 else ""), do="take them out of the rows to keep",
        )  # fmt: skip


def _said(fact: Fact) -> str:
    return normalised("\n".join(str(message["content"]) for message in fact.messages))


def recipe_of(request: Request) -> Recipe:
    """The training, resolved."""
    adapter = ADAPTERS[request.adapter]()
    objective = OBJECTIVES[request.method](**dict(request.settings))
    rate = request.learning_rate or adapter.default_learning_rate
    return Recipe(
        objective, adapter, resolve(request.precision).name, request.steps, request.batch_size, rate, seed=request.seed
    )


def balanced(feed: Feed, num_forget: int) -> Feed:
    """Rows to forget repeated until they are half: a step that lacks them would have nothing to forget."""
    num_retain = len(feed) - num_forget
    times = max(1, num_retain // max(1, num_forget))
    return replace(feed, encoded=[*list(feed.encoded[:num_forget]) * times, *feed.encoded[num_forget:]])


def _trained(
    request: Request, recipe: Recipe, built: Built, feed: Feed, tokenizer: Any, say: Say, stop: Callable[[], bool]
) -> list[float]:  # fmt: skip
    """The loss of every step."""
    whole = with_columns(recipe, built, feed, lambda: reinforced(request, tokenizer, say))
    losses = []
    for done in train(built, recipe, whole):
        losses.append(done.loss)
        if stop():
            raise Interrupted(f"Stopped on request at step {done.step} of unlearning.", do="run again; it begins anew")
        if done.step % max(1, recipe.steps // 5) == 0:
            say(f"step {done.step} of {recipe.steps}: loss {done.loss:.3f}")
    return losses


def reinforced(request: Request, tokenizer: Any, say: Say) -> Any:
    """The second model of generic-targets: this one, trained further on what is to be forgotten."""
    say("teaching a copy more of what is to be forgotten")
    recipe = replace(recipe_of(request), objective=OBJECTIVES["instruction"](), adapter=ADAPTERS["full"]())
    built = build(recipe, lambda dtype, attention: load_model(request.model, dtype=dtype, attention=attention))
    for _ in train(built, recipe, plain(facts(request.forget), recipe, tokenizer)):
        pass
    return built.model.eval()


def plain(taught: Sequence[Fact], recipe: Recipe, tokenizer: Any) -> Feed:
    """Facts to learn from as answers."""
    return feed_of(
        [fact.row() for fact in taught], Setting(recipe.objective, tokenizer, "decoder", MAX_TOKENS), _pad(tokenizer)
    )


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _texts(request: Request) -> list[str]:
    return [text_of(row) for row in read_rows(request.texts).rows] if request.texts else []


def measured(
    witness: Witness, forget: Sequence[Fact], sets: dict[str, list[Fact]], texts: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known of the rows to forget and how it can be got out, and what is known of each set to keep."""
    witness.model.eval()
    kept = {name: witness.knows(rows) for name, rows in sets.items()}
    own = witness.knows(forget)
    attacks = {"extraction": witness.extracted(forget), "paraphrase": witness.paraphrased(forget)}
    return {
        "forget": own | attacks,
        "kept": kept,
        "utility": utility(kept),
        "bits_per_token": witness.bits(texts) if texts else None,
    }


def relearn(request: Request, built: Built, tokenizer: Any, forget: Sequence[Fact]) -> list[float]:
    """Teach every other row to forget again; the mean probability of the others after each step. It uses the model up."""
    taught, others = list(forget[::2]), list(forget[1::2]) or list(forget)
    recipe = replace(
        recipe_of(request), objective=OBJECTIVES["instruction"](), steps=max(1, request.relearn_steps), schedule="constant",
        warmup_fraction=0.0, batch_size=len(taught),
    )  # fmt: skip
    again = replace(
        built,
        optimizer=adamw(built.parameters, learning_rate=recipe.learning_rate, weight_decay=0.0),
        objective=recipe.objective,
    )
    witness = Witness(built.model, tokenizer)
    probability = lambda: sum(map(math.exp, witness.per_token(others, [fact.answer for fact in others]))) / len(others)
    curve = [probability()]
    if request.relearn_steps:
        curve += [probability() for _ in train(again, recipe, plain(taught, recipe, tokenizer))]
    return curve


def asked_of_the_other(
    request: Request,
    tokenizer: Any,
    forget: Sequence[Fact],
    sets: dict[str, list[Fact]],
    relearned: dict[str, list[float]],
) -> dict[str, Any]:
    """The same of the model that never saw the rows; it is taught them for the first time."""
    recipe, folder = recipe_of(request), request.never_saw
    assert folder is not None
    built = build(recipe, lambda dtype, attention: load_model(folder, dtype=dtype, attention=attention))
    found = measured(Witness(built.model, tokenizer), forget, sets, _texts(request))
    relearned["never saw them"] = relearn(request, built, tokenizer, forget)
    return found


def save(recipe: Recipe, model: Path, built: Built, out: Path) -> None:
    """Write what was trained, with the tokenizer, as a solution."""
    out.mkdir(parents=True, exist_ok=True)
    recipe.adapter.save(built.model, out / recipe.adapter.form)
    if recipe.adapter.form == "model":
        copy_tokenizer(model, out / "model")
    write_solution(out, form=recipe.adapter.form, examples=0, head=recipe.head)


def _report(
    request: Request, recipe: Recipe, before: dict[str, Any], after: dict[str, Any], never: dict[str, Any] | None,
    relearned: dict[str, list[float]],
) -> dict[str, Any]:  # fmt: skip
    quality = _quality(after, never) | ({"before": _quality(before, never)} if never else {})
    kept = {name: _kept(before["kept"][name], after["kept"][name], request.keep) for name in after["kept"]}
    was = before["forget"]["probability"]
    return {
        "method": request.method, "objective": describe(recipe.objective), "adapter": request.adapter, "steps": recipe.steps,
        "learning_rate": recipe.learning_rate, "before": before, "after": after, "never_saw": never, "forget_quality": quality,
        "forgotten": _forgotten(before, after, quality), "kept": kept, "keep": request.keep,
        "relearned": {
            name: {"probability": curve, "half_back_after": steps_to_come_back(curve, was)} for name, curve in relearned.items()
        },
    }  # fmt: skip


def compared(suites: Sequence[Suite], results: Results, keep: float) -> dict[str, dict[str, Any]]:
    """Each suite before and after: the scores, their paired difference, and whether the bound `keep` holds."""
    found = told(suites, results)
    benchmarks = {}
    for suite, change in zip(found["suites"], found["comparisons"]):
        before, after = (suite["systems"][name]["value"] for name in ("before", "after"))
        holds = after <= before / keep if suite["lower_is_better"] else after >= keep * before
        benchmarks[suite["name"]] = {
            "holds": holds, "before": before, "after": after, "metric": suite["metric"], "rows": suite["rows"],
            "lower_is_better": suite["lower_is_better"],
            "minimum_detectable_difference": suite["minimum_detectable_difference"],
            **{name: change[name] for name in ("difference", "low", "high", "p_holm", "verdict")},
        }  # fmt: skip
    return benchmarks


def constants(pairs: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """KEY=NUMBER pairs, the constants of a method's equation. Errors: BadRequest."""
    found = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            found.append((key, int(value) if value.isdigit() else float(value)))
        except ValueError:
            raise BadRequest(
                "A constant is not said right.", wanted="KEY=NUMBER, such as beta=0.1", found=pair
            ) from None
    return tuple(found)


def of_project(spec: Any, model: Path, base: Path) -> Request:
    """The request of a project's [unlearn] table, for the model that it made. Errors: BadRequest."""
    unlearn = spec.unlearn
    files = lambda names: tuple(base / name for name in names)
    return Request(
        model,
        base / unlearn.forget,
        base / unlearn.retain,
        files(unlearn.also),
        files(unlearn.suites),
        base / unlearn.texts if unlearn.texts else None,
        folder_of(unlearn.never_saw, base) if unlearn.never_saw else None,
        unlearn.method,
        constants(unlearn.settings),
        unlearn.adapter,
        unlearn.steps,
        unlearn.batch_size,
        unlearn.learning_rate,
        unlearn.precision,
        unlearn.keep,
        unlearn.relearn_steps,
        spec.project.seed,
    )


def succeeded(found: Mapping[str, Any]) -> bool:
    """Forgotten, and nothing harmed beyond the bound."""
    return bool(found["forgotten"]["holds"]) and all(
        one["holds"] for part in ("kept", "benchmarks") for one in found[part].values()
    )


def _quality(found: dict[str, Any], never: dict[str, Any] | None) -> dict[str, Any]:
    if never is None:
        return {"p_value": None, "statistic": None}
    statistic, p_value = ks_test(found["forget"]["rows"]["truth_ratio"], never["forget"]["rows"]["truth_ratio"])
    return {"p_value": p_value, "statistic": statistic}


def _forgotten(before: dict[str, Any], after: dict[str, Any], quality: dict[str, Any]) -> dict[str, Any]:
    """The truth has become half as likely or less, and, where it is known, as it is to a model that never saw the rows."""
    whole = max(after["forget"]["extraction"]["rows"], after["forget"]["paraphrase"]["rows"])
    halved = after["forget"]["probability"] <= before["forget"]["probability"] / 2
    alike = None if quality["p_value"] is None else quality["p_value"] > ALIKE
    return {"holds": halved and (alike is not False), "halved": halved, "alike": alike, "rows_that_come_back": whole}


def _kept(before: dict[str, Any], after: dict[str, Any], keep: float) -> dict[str, Any]:
    """ROUGE-L after against before, row by row; the bound holds on the mean."""
    test = paired(before["rows"]["rouge_l"], after["rows"]["rouge_l"])
    return {
        "holds": after["rouge_l"] >= keep * before["rouge_l"], "before": before["rouge_l"], "after": after["rouge_l"],
        "difference": test.difference, "low": test.low, "high": test.high,
    }  # fmt: skip
