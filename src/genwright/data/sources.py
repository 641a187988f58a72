"""Files and data sets into rows, with a fingerprint: JSONL, JSON, CSV, Parquet, and a folder that `datasets` saved.

What a file is, is told by its ending; what its rows are, by their keys, and said in `Dataset.format`. Nothing is
guessed in silence: keys that fit two formats are an error that shows two rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError, MissingExtra
from genwright.base.files import sha256_of_file, sha256_of_json
from genwright.base.registry import unknown_name
from genwright.data.formats import FORMATS, OPTIONAL, Row, formats_of, row_of

Record = tuple[str, dict[str, Any]]
"""("file:line", values by column)."""


@dataclass(frozen=True)
class Dataset:
    """Rows and where they came from."""

    rows: list[Row]
    format: str
    """Name of the row format, as recognised or as asked for."""
    fingerprint: str
    """SHA-256 over the names and contents of the files that were read."""
    path: Path


def read_rows(path: Path | str, *, format: str = "auto", columns: Mapping[str, str] | None = None) -> Dataset:
    """Every row of a file or folder.

    columns: format key -> the file's name for it, such as {"prompt": "question"}. Errors: DataError with file and line;
    UnknownName for a format nobody knows; MissingExtra without pyarrow.
    """
    path = Path(path)
    if format != "auto" and format not in FORMATS:
        raise unknown_name("row format", format, ["auto", *FORMATS])
    files = files_of(path)
    records = [(place, _renamed(value, columns or {}, place)) for file in files for place, value in records_of(file)]
    if not records:
        raise DataError(f"{path} is empty: it has no rows.", wanted="at least one row")
    named = format if format != "auto" else recognised(records)
    rows = [row_of(value, named, place) for place, value in records]
    return Dataset(rows, named, sha256_of_json([[file.name, sha256_of_file(file)] for file in files]), path)


def recognised(records: list[Record]) -> str:
    """The one format that every record's keys fit. Errors: DataError when none or several do, or a record deviates."""
    place, first = records[0]
    found = formats_of(first)
    if not found:
        raise DataError(
            f"{place}: no row format has these columns.",
            found=_told(first),
            wanted="; ".join(map(" + ".join, FORMATS.values())),
            do='name the columns: data.columns = { prompt = "your column", completion = "another" }',
        )
    if len(found) > 1:
        raise _ambiguous(records[:2], found)
    for other, value in records:
        fits = formats_of(value)
        if fits and fits != found:
            raise DataError(
                f"{other}: the row is not in the format of the rows before it.",
                wanted=f"{found[0]}, as {place}: {_told(first)}",
                found=f"{' or '.join(fits)}: {_told(value)}",
                do="put rows of different formats into different files",
            )
    return found[0]


def _ambiguous(records: list[Record], found: tuple[str, ...]) -> DataError:
    shown = "".join(
        f"\n          {place}: {_short(json.dumps(value, ensure_ascii=False, default=str))}" for place, value in records
    )
    return DataError(
        f"{records[0][0].rpartition(':')[0]}: the rows could be in more than one format: {' or '.join(found)}.",
        found=f"for example{shown}",
        do=" or ".join(f'data.format = "{name}"' for name in found) + " says which",
    )


def files_of(path: Path) -> list[Path]:
    """The files a path stands for: itself, a saved data set's Arrow files, or a folder's data files by name."""
    if not path.exists():
        raise DataError(
            f"There is no file {path}.", wanted=f"a file ({', '.join(READERS)}) or a folder of such files",
            do="put the rows there, or name another file: a project names its own in [data]",
        )  # fmt: skip
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = _json(path / "dataset_dict.json").get("splits", [])
        raise DataError(
            f"{path} holds several splits.",
            found=", ".join(splits),
            do=f"name one of them, such as {path / (splits or ['train'])[0]}",
        )
    if (path / "state.json").exists():
        return [path / file["filename"] for file in _json(path / "state.json")["_data_files"]]
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in READERS and not file.name.startswith((".", "dataset_info"))
    )
    if not files:
        raise DataError(f"{path} has no data files.", wanted=f"files ending in {', '.join(READERS)}")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", do="save the data set again") from error


def records_of(path: Path) -> Iterator[Record]:
    """(place, the row as it stands there) of each row of one file. Errors: DataError."""
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path}: files ending in '{path.suffix}' are not read.", wanted=", ".join(READERS))
    return READERS[path.suffix.lower()](path)


def _renamed(value: dict[str, Any], columns: Mapping[str, str], place: str) -> dict[str, Any]:
    """The values under the format's keys. A column that a renamed one would hide is left out."""
    if not columns:
        return value
    known = {key for keys in FORMATS.values() for key in keys} | set(OPTIONAL)
    for key, column in columns.items():
        if key not in known:
            raise DataError(
                f"data.columns names '{key}', which no row format has.", wanted=f"one of {', '.join(sorted(known))}"
            )
        if column not in value:
            raise DataError(
                f"{place}: there is no column '{column}', which data.columns maps to '{key}'.", found=_told(value)
            )
    kept = {name: one for name, one in value.items() if name not in columns.values()}
    return kept | {key: value[column] for key, column in columns.items()}


def _told(value: Mapping[str, Any]) -> str:
    return f"the columns {', '.join(map(str, value)) or '(none)'}"


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."


# --- one reader per kind of file --------------------------------------------------------------------------------------

BETWEEN = re.compile(r"[\s,]*")
"""What stands between the values of an array that is known to be JSON."""


def decoded(path: Path) -> str:
    """A file's text. Errors: DataError with the line of the first byte that is not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: the text is not UTF-8.",
            found=f"the byte 0x{error.object[error.start]:02x}",
            do=f"save the file as UTF-8, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from error


def _json_rows(path: Path) -> Iterator[Record]:
    """One object a line, or one array of objects, whatever the file's ending."""
    text = decoded(path)
    if text.lstrip().startswith("["):
        yield from _array(text, path)
        return
    # Not splitlines(): a JSON text may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(_parsed(line, path, number), f"{path}:{number}")


def _array(text: str, path: Path) -> Iterator[Record]:
    """The objects of an array, each with the line it begins on."""
    _parsed(text, path, 1)
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = BETWEEN.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]  # it matches everywhere
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, end = decoder.raw_decode(text, at)
        yield _object(value, f"{path}:{line}")
        at = BETWEEN.match(text, end).end()  # type: ignore[union-attr]


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = line + getattr(error, "lineno", 1) - 1
        reason = getattr(error, "msg", str(error))
        raise DataError(
            f"{path}:{place}: the line is not JSON: {reason}.",
            wanted="one JSON object a line, or one array of objects",
            found=_short(text.split("\n")[place - line].strip()[:120]),
            do="repair or remove the line",
        ) from error


def _object(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(
            f"{place}: the row is not an object.",
            wanted='{"prompt": "...", "completion": "..."}',
            found=_short(repr(value)[:120]),
        )
    return place, value


def _csv(path: Path) -> Iterator[Record]:
    yield from csv_records(decoded(path), path)


def csv_records(text: str, path: Path) -> Iterator[Record]:
    """Comma, semicolon or tab, told from the header line. A row's line is the one it begins on. Errors: DataError."""
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins, names = 1, None
    try:
        for values in reader:
            place, begins = f"{path}:{begins}", reader.line_num + 1
            if not values:
                continue
            if names is None:
                names = values
            elif len(values) != len(names):
                raise DataError(
                    f"{place}: the row has {len(values)} columns.", wanted=f"{len(names)}: {', '.join(names)}"
                )
            else:
                yield place, dict(zip(names, values))
    except csv.Error as error:
        raise DataError(
            f"{path}:{begins}: the row is not CSV: {error}.", do="close the quotes, or save the file again"
        ) from error


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "Reading Parquet") from error
    yield from _table(path, lambda: parquet.read_table(path))


def _arrow(path: Path) -> Iterator[Record]:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "Reading a saved data set") from error
    yield from _table(path, lambda: pyarrow.ipc.open_stream(pyarrow.OSFile(str(path), "rb")).read_all())


def _table(path: Path, read: Callable[[], Any]) -> Iterator[Record]:
    """Rows of an Arrow table; a column that is null in every row is as good as absent."""
    try:
        table = read()
    except Exception as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}", do="save the file again") from error
    filled: Iterable[str] = [name for name in table.column_names if table[name].null_count < table.num_rows]
    for number, value in enumerate(table.select(filled).to_pylist(), start=1):
        yield f"{path}:{number}", value


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""File ending -> how its rows are read."""
