"""Set the line numbers of links such as [`rig.Rig`](../fourdface/methods/splat/rig.py#L42) in docs/ and the README.

The last part of the name in backticks is looked for in the file: a function, class or constant.

Usage: python scripts/number_references.py [--check]   (--check writes nothing; exit code 1 if a number is off)
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<file>[\w./-]+\.py)#L(?P<line>\d+)\)")


def definitions(file: Path) -> dict[str, int]:
    """Line of every function, class, method and module constant of a Python file; the first of a name counts."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.Assign):
            lines.update({t.id: node.lineno for t in node.targets if isinstance(t, ast.Name) and t.id not in lines})
    return lines


def numbered(page: Path) -> tuple[str, list[str]]:
    """A page with right numbers, and what is wrong in it (names that are not there cannot be mended)."""
    wrong: list[str] = []

    def replace(match: re.Match[str]) -> str:
        file = (page.parent / match["file"]).resolve()
        line = definitions(file).get(match["name"].rpartition(".")[2]) if file.is_file() else None
        if line is None:
            wrong.append(f"{page.name}: {match['name']} is not in {match['file']}")
            return match[0]
        if line != int(match["line"]):
            wrong.append(f"{page.name}: {match['name']} is at line {line}, not {match['line']}")
        return match[0].replace(f"#L{match['line']}", f"#L{line}")

    return LINK.sub(replace, page.read_text(encoding="utf-8")), wrong


def main() -> int:
    """Mend or check every page."""
    failures = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text, wrong = numbered(page)
        for line in wrong:
            print(line)
        if "--check" in sys.argv:
            failures += len(wrong)
        else:
            page.write_text(text, encoding="utf-8")
            failures += sum("is not in" in line for line in wrong)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
