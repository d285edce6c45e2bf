"""The files from the command `make pretrain` to the weights that it trains, and how long they are.

python -m tests.reading_path      prints them
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENTRY = "pretrain.__main__"
READS_CORPUS = ("data/packing/", "data/held_out.py")
"""Of data/, only what reads a packed corpus counts; the rest makes it."""


def main() -> None:
    """Print the number of lines of each file."""
    lengths = lengths_by_file()
    for file, lines in lengths.items():
        print(f"{lines:6,}  {file}")
    print(f"{sum(lengths.values()):6,}  in {len(lengths)} files")


def lengths_by_file() -> dict[str, int]:
    """Lines of each file that the entry imports, directly or not, anywhere in a file."""
    found, todo = dict[str, int](), [ENTRY]
    while todo:
        file = _file(todo.pop())
        name = file.relative_to(ROOT).as_posix() if file else ""
        if not name or name in found or (name.startswith("data/") and not name.startswith(READS_CORPUS)):
            continue
        assert file is not None
        text = file.read_text("utf-8")
        found[name] = text.count("\n")
        todo += _imports(ast.parse(text))
    return dict(sorted(found.items()))


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file names in its imports; `from a import b` may mean a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """The file of a module of this project; None for a package (whose `__init__.py` is a docstring)."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    return file if file.is_file() else None


if __name__ == "__main__":
    main()
