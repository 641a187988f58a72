"""House rules that a reader of the source can check, checked."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_FUNCTION = 60
"""Lines: a screen."""

FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "yaml.load", "yaml.unsafe_load", "joblib.load",
    "marshal.load", "marshal.loads", "eval", "exec", "os.system", "os.popen",
}  # fmt: skip
"""Each runs what a file or a stranger wrote. `model.eval()` is another thing: only the bare name counts."""

FORBIDDEN_ARGUMENTS = {
    "shell": True,
    "trust_remote_code": True,
    "verify": False,
    "allow_pickle": True,
    "weights_only": False,
}

MACHINE_PATHS = re.compile(r"/work/|/tmp/cache|/opt/|(?<![\w-])shared/|\b(pypi|npmjs|pythonhosted|debian)\.(org|com)\b")


def unsafe_uses(tree: ast.AST) -> Iterator[str]:
    """Calls and arguments that run foreign code or trust a stranger."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN_CALLS:
            yield f"line {node.lineno}: {name}"
        for argument in node.keywords:
            value = argument.value.value if isinstance(argument.value, ast.Constant) else None
            if argument.arg in FORBIDDEN_ARGUMENTS and value is FORBIDDEN_ARGUMENTS[argument.arg]:
                yield f"line {node.lineno}: {name}(..., {ast.unparse(argument)})"
        if name.endswith("import_module") and any(
            isinstance(word, ast.Constant) and word.value == "pickle" for word in node.args
        ):
            yield f"line {node.lineno}: pickle by its name"


def long_functions(tree: ast.AST) -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{node.name}: {length} lines"


def undocumented(tree: ast.Module) -> Iterator[str]:
    """The file, and its public functions, classes and methods, when they have no docstring."""
    if ast.get_docstring(tree) is None:
        yield "the file itself"
    parts = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for part in parts:
        members = part.body if isinstance(part, ast.ClassDef) else []
        methods = [node for node in members if isinstance(node, ast.FunctionDef) and not part.name.startswith("_")]
        for node in [part, *methods]:
            if not node.name.startswith("_") and ast.get_docstring(node) is None and not is_overload(node):
                yield node.name


def is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """A library's method that we override is documented there; `forward` and `backward` of torch are such."""
    return node.name in {"forward", "backward"} or any("override" in ast.unparse(mark) for mark in node.decorator_list)


def test_nothing_runs_foreign_code(modules) -> None:
    assert not {module.name: found for module in modules if (found := list(unsafe_uses(module.tree)))}


def test_functions_fit_on_a_screen(modules) -> None:
    assert not {module.name: found for module in modules if (found := list(long_functions(module.tree)))}


def test_what_is_public_has_a_docstring(modules) -> None:
    assert not {module.name: found for module in modules if (found := list(undocumented(module.tree)))}


def test_every_room_says_what_it_is(package: Path) -> None:
    rooms = [folder for folder in package.iterdir() if folder.is_dir() and any(folder.glob("*.py"))]
    silent = [room.name for room in rooms if not room_docstring(room)]
    assert not silent


def room_docstring(room: Path) -> str:
    file = room / "__init__.py"
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" if file.exists() else ""


def test_no_room_is_empty(package: Path) -> None:
    """A folder appears with its first real use."""
    rooms = [folder for folder in package.rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    assert not [
        room.name for room in rooms if not any(file.name != "__init__.py" for file in room.iterdir() if file.is_file())
    ]


MADE = {"data", "model", ".genwright", "__pycache__"}


def texts(folder: Path) -> Iterator[Path]:
    """Files that a person wrote; what the examples make for themselves is not."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts[1:]
        made = MADE & set(parts[:-1]) or parts[-1:] in (("report.html",), ("model-card.md",))
        if (
            path.is_file()
            and path.suffix in {".py", ".md", ".toml", ".html", ".css", ".js", ".sh", ".txt"}
            and (folder.name != "examples" or not made)
        ):
            yield path


def test_no_file_names_the_machine_it_was_written_on(root: Path) -> None:
    written = [path for folder in ("src", "docs", "examples") for path in texts(root / folder)]
    written += [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "CHANGELOG.md",
        root / "Makefile",
        root / "pyproject.toml",
    ]
    named = {
        path.relative_to(root).as_posix(): match[0]
        for path in written
        if (match := MACHINE_PATHS.search(path.read_text(encoding="utf-8")))
    }
    assert not named


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)", "torch.load(path)", "eval('1')", "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", "requests.get(url, verify=False)",
        "numpy.load(path, allow_pickle=True)", "importlib.import_module('pickle')",
    ],
)  # fmt: skip
def test_the_check_sees_unsafe_code(line: str) -> None:
    assert list(unsafe_uses(ast.parse(line)))


@pytest.mark.parametrize("line", ["model.eval()", "json.load(file)", "f(trust_remote_code=False)", "f(shell=False)"])
def test_the_check_leaves_safe_code_alone(line: str) -> None:
    assert not list(unsafe_uses(ast.parse(line)))


def test_the_check_sees_a_long_function() -> None:
    body = "    pass\n"
    assert list(long_functions(ast.parse("def f():\n" + body * LONGEST_FUNCTION)))
    assert not list(long_functions(ast.parse("def f():\n" + body * (LONGEST_FUNCTION - 1))))


def test_the_check_sees_a_missing_docstring() -> None:
    assert list(undocumented(ast.parse("class C:\n    '''C.'''\n    def f(self): pass"))) == ["the file itself", "f"]


@pytest.mark.parametrize("text", ["/work/main", "../shared/data", "https://pypi" + ".org/simple"])
def test_the_check_sees_a_machine_path(text: str) -> None:
    assert MACHINE_PATHS.search(text)
