"""Artifacts: whole and proven, or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from genwright.base.errors import Corrupt
from genwright.project.store import MANIFEST, Store

KEY, OTHER = "a1" * 32, "b2" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".genwright")


def make(store: Store, key: str = KEY, text: str = "hello", stage: str = "scope") -> Path:
    with store.publish(stage, key, {"adapt.steps": 5, "version": 1}, {"before": "d0"}) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "rows.jsonl").write_text(text)
        (folder / f"{stage}.json").write_text(json.dumps({"met": True}))
    return store.artifact(stage, key)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_published_is_found(store: Store) -> None:
    assert store.find("scope", KEY) is None
    assert store.latest("scope") is None
    path = make(store)
    artifact = store.find("scope", KEY)
    assert artifact is not None and artifact.path == path
    assert (artifact / "deep" / "rows.jsonl").read_text() == "hello"
    assert (artifact.key, artifact.fields["adapt.steps"], artifact.inputs) == (KEY, 5, {"before": "d0"})
    assert artifact.summary() == {"met": True}
    assert store.latest("scope") == artifact
    assert store.last_fields("scope") == {"adapt.steps": 5, "version": 1}


def test_equal_content_is_equal_bytes_and_one_digest(store: Store, tmp_path: Path) -> None:
    second = Store(tmp_path / "elsewhere")
    assert tree(make(store)) == tree(make(second))
    third = store.find("scope", make(store, OTHER).name and OTHER)
    first = store.find("scope", KEY)
    assert first is not None and third is not None and first.digest == third.digest
    make(store, OTHER, "other")
    changed = store.find("scope", OTHER)
    assert changed is not None and changed.digest != first.digest


def test_a_block_that_fails_leaves_nothing_and_the_old_one_untouched(store: Store) -> None:
    path = make(store)
    before = tree(path)
    with pytest.raises(RuntimeError, match="half way"), store.publish("scope", KEY, {}, {}) as folder:
        (folder / "rows").write_text("half")
        raise RuntimeError("half way")
    assert tree(path) == before
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    assert store.find("scope", KEY) is not None


def test_the_same_key_is_replaced(store: Store) -> None:
    make(store)
    path = make(store, text="again")
    assert (path / "deep" / "rows.jsonl").read_text() == "again"
    assert store.find("scope", KEY) is not None
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def flip(path: Path, at: int = 2) -> None:
    """One bit, with size and times as they were."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_bit_is_found_although_size_and_time_are_the_same(store: Store) -> None:
    path = make(store)
    assert store.find("scope", KEY) is not None  # proven once in this process: that must not hide what comes now
    flip(path / "deep" / "rows.jsonl")
    with pytest.raises(Corrupt, match=r"deep/rows\.jsonl is not what was written") as caught:
        store.find("scope", KEY)
    assert caught.value.wanted.startswith("SHA-256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    with pytest.raises(Corrupt):
        Store(store.root).find("scope", KEY)


def test_a_missing_file_is_named(store: Store) -> None:
    (make(store) / "deep" / "rows.jsonl").unlink()
    with pytest.raises(Corrupt, match=r"deep/rows\.jsonl is missing"):
        store.find("scope", KEY)


def test_a_longer_file_is_named(store: Store) -> None:
    (make(store) / "scope.json").write_text("longer than it was, by far")
    with pytest.raises(Corrupt, match=r"scope\.json has another size") as caught:
        store.find("scope", KEY)
    assert (caught.value.wanted, caught.value.found) == ("13 bytes", "26 bytes")


@pytest.mark.parametrize("length", [0, 1, 40, -1, -2, -30])
def test_a_manifest_that_was_cut_short(store: Store, length: int) -> None:
    manifest = make(store) / MANIFEST
    whole = manifest.read_text()
    manifest.write_text(whole[:length])
    if length == -1:  # only the last newline is gone: nothing is lost
        assert store.find("scope", KEY) is not None
        return
    with pytest.raises(Corrupt, match=r"manifest\.json cannot be read"):
        store.find("scope", KEY)
    assert store.latest("scope") is None


def test_a_manifest_that_was_changed(store: Store) -> None:
    manifest = make(store) / MANIFEST
    manifest.write_text(manifest.read_text().replace('"adapt.steps": 5', '"adapt.steps": 6'))
    with pytest.raises(Corrupt, match="its seal is broken"):
        store.find("scope", KEY)


def test_a_manifest_that_is_gone_or_of_another_key(store: Store) -> None:
    make(store)
    with pytest.raises(Corrupt, match="belongs to another key"):
        store.find("scope", KEY[:16] + OTHER[16:])
    (store.artifact("scope", KEY) / MANIFEST).unlink()
    with pytest.raises(Corrupt, match=r"manifest\.json is missing"):
        store.find("scope", KEY)


def test_a_damaged_artifact_is_kept_for_a_person_to_look_at(store: Store) -> None:
    make(store)
    first = store.set_aside("scope", KEY)
    make(store)
    second = store.set_aside("scope", KEY)
    assert first != second
    assert (first / "deep" / "rows.jsonl").read_text() == "hello" == (second / "deep" / "rows.jsonl").read_text()
    assert store.find("scope", KEY) is None
    assert store.last_fields("scope") is not None


def test_work_survives_until_the_artifact_is_there(store: Store) -> None:
    work = store.work("scope", KEY)
    assert not store.has_work("scope", KEY)
    (work / "step-5").write_text("x")
    assert Store(store.root).has_work("scope", KEY)
    assert not store.has_work("scope", OTHER)
    make(store)
    assert not work.exists()


def test_the_newest_is_what_was_pointed_at_last(store: Store) -> None:
    make(store)
    make(store, OTHER)
    store.point("scope", KEY, {})
    latest = store.latest("scope")
    assert latest is not None and latest.key == KEY
    (store.root / "latest" / "scope.json").write_text("{")
    assert store.latest("scope") is None
    assert store.last_fields("scope") is None


def test_cleaning_lists_first_and_removes_when_told(store: Store) -> None:
    kept, old = make(store), make(store, OTHER, "old" * 1000)
    make(store, stage="adapt")
    aside = store.set_aside("adapt", KEY)
    (store.work("adapt", OTHER) / "x").write_text("x")
    (store.work("adapt", KEY) / "x").write_text("x")
    torn = kept.parent / ".half"
    torn.mkdir()
    keep = {"scope": KEY, "adapt": KEY}
    listed = {thing.path: thing.why for thing in store.clean(keep)}
    assert listed == {
        old: "made for other settings",
        aside: "damaged",
        store.work("adapt", OTHER): "begun for other settings",
        torn: "half-written when a run was killed",
    }
    assert store.clean(keep)[0].bytes >= 3000
    assert all(path.exists() for path in listed)
    assert {thing.path for thing in store.clean(keep, remove=True)} == set(listed)
    assert not any(path.exists() for path in listed)
    assert store.find("scope", KEY) is not None and store.has_work("adapt", KEY)
    assert store.clean(keep) == []


def test_sweeping_removes_only_what_was_being_written(store: Store) -> None:
    path = make(store)
    (path.parent / f".{path.name}.x7").mkdir()
    (path.parent / f".{path.name}.x7" / "half").write_text("half")
    (store.root / "latest" / ".scope.json.y8").write_text("half")
    store.sweep()
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    assert [child.name for child in (store.root / "latest").iterdir()] == ["scope.json"]
    assert store.find("scope", KEY) is not None
