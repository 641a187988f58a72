"""The library: added, replaced and removed whole, versioned by content, one base, seen by other processes."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
from tests.serve.texts import WordEmbedder, asked

from genwright.base.errors import BadRequest, DataError, ModelError, UnknownName
from genwright.cli import main
from genwright.serve.expert_report import listed, queries_of, report_of
from genwright.serve.experts import ExpertLibrary, digest_of_base, publish


def adapter(folder, weights=b"1", base="tiny"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_add_replace_remove(tmp_path):
    told = []
    library = ExpertLibrary(tmp_path / "library", told.append)
    first = library.add(adapter(tmp_path / "a"), "az")
    second = library.add(adapter(tmp_path / "a", b"2"), "az")
    assert first.version != second.version and first.path != second.path, "a cache by path cannot be stale"
    assert (first.path / "adapter_model.safetensors").read_bytes() == b"1", "requests that run on it end as they began"
    assert [one.served_name for one in library.experts()] == [second.served_name]
    other = ExpertLibrary(tmp_path / "library")
    assert other.get("az") == second
    library.remove("az")
    assert other.get("az") is None and len(told) == 3
    assert library.sweep() == 2 and not first.path.exists()


def test_equal_bytes_are_the_same_version(tmp_path):
    library = ExpertLibrary(tmp_path / "library")
    assert library.add(adapter(tmp_path / "a"), "x").version == library.add(adapter(tmp_path / "b"), "y").version


def test_what_is_no_expert_of_this_base_is_refused_and_changes_nothing(tmp_path):
    library = ExpertLibrary(tmp_path / "library")
    library.add(adapter(tmp_path / "a"), "az")
    before = (tmp_path / "library" / "index.json").read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is no adapter"):
        library.add(tmp_path / "empty", "b")
    with pytest.raises(ModelError, match="of another base"):
        library.add(adapter(tmp_path / "c", base="other"), "c")
    with pytest.raises(BadRequest, match="cannot be named"):
        library.add(adapter(tmp_path / "d"), "../d")
    with pytest.raises(BadRequest, match="cannot be named"):
        library.add(adapter(tmp_path / "d"), "auto")
    with pytest.raises(UnknownName, match="There is no expert 'ax'"):
        library.remove("ax")
    assert (tmp_path / "library" / "index.json").read_bytes() == before


def test_a_base_is_its_weights_where_the_card_tells_them_and_its_name_else(tmp_path):
    def told(folder, base, digest):
        (adapter(folder, folder.name.encode(), base="") / "expert").mkdir()
        (folder / "expert" / "expert.json").write_text(json.dumps({"base": base, "base_digest": digest}))
        return folder

    library = ExpertLibrary(tmp_path / "library")
    library.add(told(tmp_path / "a", "model", "111"), "a")
    with pytest.raises(ModelError, match="of another base"):
        library.add(told(tmp_path / "b", "model", "222"), "b")
    library.add(told(tmp_path / "c", "moved", "111"), "c")
    assert library.base_digest == "111" and [one.name for one in library.experts()] == ["a", "c"]


def test_the_digest_of_a_base_is_of_its_weights_however_it_is_found(tmp_path):
    weights = tmp_path / "artifact" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"1")
    found = digest_of_base(weights.parent)
    proof = {"files": {"model/model.safetensors": {"sha256": hashlib.sha256(b"1").hexdigest()}}}
    (tmp_path / "artifact" / "manifest.json").write_text(json.dumps(proof))
    (weights.parent / "config.json").write_text("{}")
    assert digest_of_base(weights.parent) == found
    (tmp_path / "artifact" / "manifest.json").unlink()
    weights.write_bytes(b"2")
    assert digest_of_base(weights.parent) != found


def test_a_damaged_index_is_said(tmp_path):
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ModelError, match=r"index of the library .* is damaged"):
        ExpertLibrary(tmp_path).experts()


def test_many_writers_lose_nothing(tmp_path):
    library = ExpertLibrary(tmp_path / "library")
    sources = [adapter(tmp_path / f"a{number}", bytes([number])) for number in range(8)]
    adding = [
        threading.Thread(target=ExpertLibrary(library.root).add, args=(one, f"e{place}"))
        for place, one in enumerate(sources)
    ]
    for one in adding:
        one.start()
    for one in adding:
        one.join()
    assert [one.name for one in library.experts()] == [f"e{place}" for place in range(8)]


def test_published_experts_are_tested_on_queries_they_held_out(tmp_path):
    library = ExpertLibrary(tmp_path / "library")
    with pytest.raises(BadRequest, match="No expert of this library has a profile"):
        report_of(library, WordEmbedder())
    for name in ("bread", "stars"):
        expert = publish(
            library, adapter(tmp_path / name, name.encode()), asked(name, 60), WordEmbedder(), card={"licence": "MIT"}
        )
        assert expert.card["licence"] == "MIT" and "held_out" not in expert.card
    told = report_of(library, WordEmbedder())
    assert told["experts"] == 2 and told["correct"] > 0.9 and set(told["confusion"]) == {"bread", "stars"}
    assert [row["rows"] for row in listed(library)] == [60, 60]


def test_the_command(tmp_path, capsys):
    library = ["--library", str(tmp_path / "library")]
    assert main(["experts", *library]) == 0
    empty = capsys.readouterr().out
    assert f"No expert is in {tmp_path / 'library'}" in " ".join(empty.split()) and "experts add" in empty
    assert main(["experts", *library, "--json"]) == 0 and json.loads(capsys.readouterr().out) == []
    assert main(["experts", "add", str(adapter(tmp_path / "a")), "--as", "az", *library]) == 0
    assert main(["experts", *library]) == 0
    assert "az" in capsys.readouterr().out
    assert main(["experts", "remove", "az", *library]) == 0
    assert main(["experts", "remove", *library]) == 2
    assert "needs a name or a path" in capsys.readouterr().err
    assert main(["experts", "list", "--texts", "x", *library]) == 2
    assert "belong to `experts add`" in capsys.readouterr().err
    assert main(["experts", "add", str(tmp_path / "a"), "--texts", str(tmp_path / "none"), *library]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_queries_are_read_one_a_line_or_as_json_lines_that_keep_their_own(tmp_path):
    plain, rows = tmp_path / "q.txt", tmp_path / "q.jsonl"
    plain.write_text("one\u2028and more\ntwo\n", encoding="utf-8")
    assert [one for one in queries_of(plain) if one] == ["one\u2028and more", "two"]
    rows.write_text('"a\\nb"\n{"prompt": "c"}\n{"text": "d"}\n')
    assert queries_of(rows) == ["a\nb", "c", "d"]
    rows.write_text('"a"\n{"answer": "c"}\n')
    with pytest.raises(DataError, match=r"Row 2 of .* is no query"):
        queries_of(rows)
    plain.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        queries_of(plain)
