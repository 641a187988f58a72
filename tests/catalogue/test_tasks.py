"""Tasks: every name they use exists."""

from __future__ import annotations

from dataclasses import fields

import pytest

from genwright.base.errors import UnknownName
from genwright.catalogue.parts import METRICS, OBJECTIVES
from genwright.catalogue.profiles import profiles
from genwright.catalogue.tasks import Task, task, tasks
from genwright.data.formats import FORMATS

ASKED_FOR = {
    "essay-writing", "summarization", "translation", "code-generation", "information-retrieval", "function-calling",
    "chat", "classification", "sentiment", "named-entities", "word-classification", "question-answering",
}  # fmt: skip

FAMILIES = ("decoder", "encoder", "encoder-decoder")


def test_every_task_that_was_asked_for_is_there() -> None:
    assert set(tasks()) >= ASKED_FOR


@pytest.mark.parametrize("name", tasks())
def test_a_task_uses_names_that_exist(name: str) -> None:
    one = task(name)
    assert one.metric in METRICS
    assert {one.objective, *one.objectives.values()} <= set(OBJECTIVES)
    assert one.profile in profiles()
    assert one.format in FORMATS


@pytest.mark.parametrize("name", tasks())
def test_families_and_objectives_agree(name: str) -> None:
    one = task(name)
    assert set(one.families) <= set(FAMILIES) and len(set(one.families)) == len(one.families) > 0
    assert set(one.objectives) == set(one.families)
    assert one.objective == one.objectives["decoder"]


@pytest.mark.parametrize("name", tasks())
def test_no_field_is_empty(name: str) -> None:
    assert all(getattr(task(name), field.name) for field in fields(Task))
    assert " → " in task(name).example


def test_every_task_is_documented(documented: set[str]) -> None:
    assert set(tasks()) <= documented


def test_an_unknown_task_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"There is no task 'sumarization'\.[\s\S]*did you mean 'summarization'"):
        task("sumarization")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        tasks()["new"] = task("chat")  # type: ignore[index]
