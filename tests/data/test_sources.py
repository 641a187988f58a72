"""Files as people have them, whole and broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import DataError, MissingExtra, UnknownName
from genwright.data.sources import Dataset, read_rows

ROWS = [{"prompt": "a", "completion": "b, c"}, {"prompt": 'quoted "x"\nand more', "completion": "ü\u2028z"}]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(delimiter: str = ",") -> str:
    cells = [[str(cell).replace('"', '""') for cell in row.values()] for row in ROWS]
    return (
        "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in [["prompt", "completion"], *cells]) + "\r\n"
    )


def contents(dataset: Dataset) -> list[dict[str, str]]:
    return [{"prompt": row.messages[0]["content"], "completion": row.messages[1]["content"]} for row in dataset.rows]


TEXTS = {
    "rows.jsonl": lines(*ROWS),
    "marked.jsonl": b"\xef\xbb\xbf" + lines(*ROWS).encode(),
    "blank.ndjson": "\n" + lines(ROWS[0]) + "\r\n\n" + lines(ROWS[1]).rstrip(),
    "array.json": json.dumps(ROWS, indent=2),
    "array.jsonl": json.dumps(ROWS),
    "lines.json": lines(*ROWS),
    "rows.csv": csv_text(),
    "semicolons.csv": csv_text(";"),
    "rows.tsv": csv_text("\t"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_kind_of_text_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    dataset = read_rows(write(tmp_path / name, TEXTS[name]))
    assert contents(dataset) == ROWS and dataset.format == "prompt/completion"


def test_parquet_and_folders(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "messages": None} for row in ROWS]), tmp_path / "b.parquet")
    assert contents(read_rows(tmp_path / "b.parquet")) == ROWS, "a column that is null everywhere does not count"
    write(tmp_path / "a.csv", csv_text())
    write(tmp_path / "README.md", "not data")
    both = read_rows(tmp_path)
    assert contents(both) == ROWS + ROWS
    assert [Path(row.place).name for row in both.rows] == ["a.csv:2", "a.csv:3", "b.parquet:1", "b.parquet:2"]


SAVE = """
import sys, json, datasets
rows = datasets.Dataset.from_list(json.loads(sys.argv[2]))
rows.save_to_disk(sys.argv[1] + "/plain", num_shards=2)
datasets.DatasetDict({"train": rows}).save_to_disk(sys.argv[1] + "/dict")
"""


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    saved = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path), json.dumps(ROWS)], capture_output=True, text=True
    )
    if "No module named 'datasets'" in saved.stderr:
        pytest.skip("datasets is not installed")
    assert saved.returncode == 0, saved.stderr
    assert contents(read_rows(tmp_path / "plain")) == ROWS
    assert contents(read_rows(tmp_path / "dict" / "train")) == ROWS
    with pytest.raises(
        DataError, match=r"dict holds several splits.*\n.*train\n.*name one of them, such as .*dict/train"
    ):
        read_rows(tmp_path / "dict")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_without_pyarrow(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"needs the package 'pyarrow'.*\n.*pip install 'genwright\[parquet\]'"):
        read_rows(write(tmp_path / name, b"PAR1"))


GOOD = lines(ROWS[0])
BROKEN: list[tuple[str, str | bytes, str]] = [
    ("f.jsonl", GOOD + '{"prompt": \n', r"f.jsonl:2: the line is not JSON"),
    ("f.jsonl", GOOD + "[1]\n", r"f.jsonl:2: the row is not an object"),
    ("f.json", '[\n{"prompt": "a",\n}]', r"f.json:3: the line is not JSON"),
    ("f.json", '[\n{"prompt": "a", "completion": "b"},\n 7]', r"f.json:3: the row is not an object"),
    ("f.jsonl", "[" * 100_000, r"f.jsonl:1: the line is not JSON"),
    ("f.jsonl", "", r"f.jsonl is empty: it has no rows"),
    ("f.json", "[ ]", r"f.json is empty"),
    ("f.csv", "prompt,completion\n", r"f.csv is empty"),
    ("f.jsonl", GOOD.encode() + b'{"prompt": "\xe9"}\n', r"f.jsonl:2: the text is not UTF-8.*\n.*0xe9"),
    ("f.jsonl", GOOD + lines({"prompt": "a", "completion": ""}), r"f.jsonl:2: 'completion' is empty"),
    ("f.jsonl", GOOD + lines({"prompt": "a"}), r"f.jsonl:2: the row has no 'completion'"),
    (
        "f.jsonl",
        GOOD + lines({"text": "a"}),
        r"f.jsonl:2: the row is not in the format of the rows before it.*\n.*f.jsonl:1",
    ),
    ("f.jsonl", GOOD + lines({**ROWS[0], "text": "a"}), r"f.jsonl:2: the row is not in the format"),
    (
        "f.jsonl",
        lines({"question": "a", "answer": "b"}),
        r"f.jsonl:1: no row format has these columns.*\n(.*\n)*.*question, answer",
    ),
    ("f.csv", 'prompt,completion\na,"b\nc"\nd,e,f\n', r"f.csv:4: the row has 3 columns"),
    ("f.csv", 'prompt,completion\na,b\n"c,d\n', r"f.csv:3: the row is not CSV"),
    ("f.parquet", b"PAR1", r"f.parquet cannot be read"),
    ("f.xlsx", b"PK", r"files ending in '.xlsx' are not read"),
]


@pytest.mark.parametrize(("name", "text", "words"), BROKEN)
def test_broken_files_say_where(name: str, text: str | bytes, words: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=words):
        read_rows(write(tmp_path / name, text))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"There is no file .*nowhere(?s:.*)do:     put the rows there, or name another"
    ):
        read_rows(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="has no data files"):
        read_rows(tmp_path)
    write(tmp_path / "state.json", "{")
    with pytest.raises(DataError, match=r"state.json is not JSON"):
        read_rows(tmp_path)


def test_an_ambiguous_file_shows_two_rows_and_how_to_say_which(tmp_path: Path) -> None:
    row = {"instruction": "i", "output": "o", "prompt": "p", "completion": "c"}
    path = write(tmp_path / "f.jsonl", lines(row, {**row, "prompt": "second"}, row))
    with pytest.raises(DataError) as caught:
        read_rows(path)
    told = str(caught.value)
    assert "prompt/completion or instruction/output" in told
    assert (
        "f.jsonl:1: {" in told
        and 'f.jsonl:2: {"instruction": "i", "output": "o", "prompt": "second"' in told
        and "f.jsonl:3" not in told
    )
    assert 'data.format = "prompt/completion" or data.format = "instruction/output" says which' in told
    assert read_rows(path, format="instruction/output").rows[0].messages[0]["content"] == "i"
    with pytest.raises(UnknownName, match="did you mean 'messages'"):
        read_rows(path, format="mesages")


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", lines({"text": "q", "command": "c", "completion": "x", "repo": "r"}))
    dataset = read_rows(path, columns={"prompt": "text", "completion": "command", "group": "repo"})
    assert contents(dataset) == [{"prompt": "q", "completion": "c"}] and dataset.rows[0].group == "r"
    with pytest.raises(DataError, match=r"f.jsonl:1: there is no column 'ask', which data.columns maps to 'prompt'"):
        read_rows(path, columns={"prompt": "ask"})
    with pytest.raises(DataError, match=r"data.columns names 'promt', which no row format has"):
        read_rows(path, columns={"promt": "text"})


def test_places_are_lines(tmp_path: Path) -> None:
    def places(name: str) -> list[int]:
        return [int(row.place.rpartition(":")[2]) for row in read_rows(write(tmp_path / name, TEXTS[name])).rows]

    assert places("blank.ndjson") == [2, 5]
    assert places("array.json") == [2, 6]
    assert places("rows.csv") == [2, 3]


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", GOOD)
    first = read_rows(path).fingerprint
    assert read_rows(path).fingerprint == first
    assert read_rows(write(path, GOOD + "\n")).fingerprint != first
