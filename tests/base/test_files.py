"""Files that are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from genwright.base.errors import DataError, DiskFull
from genwright.base.files import (
    disk_full_is_an_error,
    files_below,
    folder_being_written,
    free_bytes,
    json_lines,
    sha256_of_bytes,
    sha256_of_file,
    sha256_of_json,
    text_of,
    write_atomic,
)

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert sha256_of_bytes(b"") == sha256_of_file(tmp_path / "a") == EMPTY
    assert sha256_of_json({"b": 1, "a": [1, "ü"]}) == sha256_of_json({"a": [1, "ü"], "b": 1})
    assert sha256_of_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    final = tmp_path / "made"
    with pytest.raises(RuntimeError, match="half way"), folder_being_written(final) as folder:
        (folder / "a").write_text("a")
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []
    with folder_being_written(final) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("a")
        assert not final.exists()
    assert files_below(final) == [final / "inner" / "a"]
    assert list(tmp_path.iterdir()) == [final]


def test_nothing_is_written_into_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").write_text("old")
    with pytest.raises(OSError, match=r"not empty|exists"), folder_being_written(tmp_path / "made") as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in files_below(tmp_path)] == ["old"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Festplattenkontingent erschöpft"),
        OSError(errno.EFBIG, "Datei zu groß"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_wording_of_a_full_disk_is_one_error(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(DiskFull, match=r"The disk is full: .* could not be written") as caught,
        disk_full_is_an_error(tmp_path),
    ):
        raise error
    assert "free" in caught.value.found
    assert "genwright clean" in caught.value.do


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_full_is_an_error(tmp_path):
        raise PermissionError(errno.EACCES, "no")


LIMITED = """
import resource, sys
from pathlib import Path
from genwright.base.errors import DataError, DiskFull
from genwright.base.files import folder_being_written, write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
base = Path(sys.argv[1])
for attempt in (lambda: write_atomic(base / "file", b"n" * 8192),):
    try:
        attempt()
    except DiskFull:
        print("full")
try:
    with folder_being_written(base / "folder") as folder:
        (folder / "big").write_bytes(b"n" * 8192)
except DiskFull:
    print("full")
"""


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "full\nfull\n", done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_free_space_is_known_for_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0


def test_json_lines_end_at_newlines_only(tmp_path: Path) -> None:
    """JSON leaves U+2028 as it is; str.splitlines() would cut a row there. A mark of byte order is no text."""
    (tmp_path / "rows.jsonl").write_text('\ufeff{"a": "one\u2028two"}\n\n{"a": 2}\r\n', encoding="utf-8")
    assert json_lines(tmp_path / "rows.jsonl") == [{"a": "one\u2028two"}, {"a": 2}]


@pytest.mark.parametrize("line", ["{", "[" * 100_000, '{"a": 1} x'])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        json_lines(tmp_path / "rows.jsonl")


def test_a_file_that_is_not_utf8_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes("\ufeff".encode() + b'{"a": 1}\n{"a": "gr\xfc\xdf"}')
    with pytest.raises(
        DataError, match=r"rows.jsonl is not text in UTF-8.\n.*\n  found:  the byte 0xfc in line 2\n  do:     save"
    ):
        json_lines(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_bytes("\ufeff{}".encode())
    assert text_of(tmp_path / "rows.jsonl") == "{}"
