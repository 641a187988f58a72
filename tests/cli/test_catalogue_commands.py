"""tasks, models, devices: what the catalogue holds, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genwright.cli.models import size


@pytest.mark.parametrize(
    ("verb", "room", "words"),
    [
        (("tasks",), "genwright.catalogue.tasks:tasks", "summarization"),
        (("models",), "genwright.catalogue.models:models", "smollm2-135m-instruct"),
        (("devices",), "genwright.catalogue.devices:devices", "h100"),
    ],
)
def test_a_list_has_every_name(genwright, verb: tuple[str], room: str, words: str) -> None:  # type: ignore[no-untyped-def]
    from genwright.base.registry import resolve

    names = list(resolve(room)())
    ran = genwright(*verb)
    assert ran.code == 0, ran.err
    assert all(name in ran.out for name in names) and words in ran.out.lower()
    assert [record["name"] for record in genwright(*verb, "--json").json()] == names


@pytest.mark.parametrize("verb", [("tasks",), ("models", "show"), ("devices",)])
def test_an_unknown_name_is_a_wrong_request(genwright, verb: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    ran = genwright(*verb, "nothing-like-it")
    assert ran.code == 2 and "nothing-like-it" in ran.err and ran.out == ""


def test_one_record_is_shown_whole(genwright) -> None:  # type: ignore[no-untyped-def]
    shown = genwright("models", "show", "smollm2-135m-instruct")
    assert shown.code == 0 and "licence" in shown.out and "architecture" in shown.out
    assert genwright("models", "show", "smollm2-135m-instruct", "--json").json()["family"] == "decoder"
    assert genwright("tasks", "summarization", "--json").json()["name"] == "summarization"


def test_models_of_one_family(genwright) -> None:  # type: ignore[no-untyped-def]
    families = {card["family"] for card in genwright("models", "list", "--family", "encoder", "--json").json()}
    assert families == {"encoder"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "x"), "`models list` takes no name."),
        (("show",), "`models show` needs a model."),
        (("pull",), "`models pull` needs a model."),
        (("show", "x", "--family", "encoder"), "--family belongs to `models list`."),
    ],
)
def test_wrong_words_are_refused(genwright, words: tuple[str, ...], message: str) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("models", *words)
    assert ran.code == 2 and message in ran.err


def test_pull_fetches_into_the_cache_and_says_where(genwright, fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked: dict[str, Any] = {}

    def fetch(source: str, cache: Path, *, offline: bool, say: Any) -> Path:
        asked.update(source=source, cache=cache, offline=offline)
        say("downloading")
        return tmp_path / "model"

    fake["genwright.models.sources:locate"] = lambda name, offline, base: f"located {name}"
    fake["genwright.models.sources:fetch"] = fetch
    fake["genwright.models.sources:cache_folder"] = lambda: tmp_path
    ran = genwright("models", "pull", "m", "--offline", "--json")
    assert ran.json() == {"model": "m", "folder": str(tmp_path / "model")}
    assert ran.err == "downloading\n"
    assert asked == {"source": "located m", "cache": tmp_path, "offline": True}


@pytest.mark.parametrize(("count", "shown"), [(134_515_008, "135 M"), (7_240_000_000, "7.24 B"), (None, "")])
def test_sizes_in_words(count: int | None, shown: str) -> None:
    assert size(count) == shown
