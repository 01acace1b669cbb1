"""The house keeps its shape: import direction, budgets, and what may not be written, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fourdface"

SUPPORT = {"media", "perception", "metrics", "training", "assets"}
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"cli", "stages", "methods", "priors", "blocks", "ops", "artifacts", *SUPPORT},
    "stages": {"stages", "methods", "priors", "blocks", "ops", "artifacts", *SUPPORT},
    "methods": {"methods", "priors", "blocks", "ops", "artifacts", *SUPPORT},
    "priors": {"priors", "blocks", "ops", *SUPPORT},
    "blocks": {"blocks", "ops", "assets"},
    "ops": {"ops", "cuda"},
    "artifacts": {"artifacts", "media.sniff"},  # sniff names what a file is, with the standard library alone
    "media": {"media"},
    "perception": {"perception", "blocks", "ops", "media", "assets"},
    "metrics": {"metrics", "blocks", "ops", "media", "assets"},
    "training": {"training", "artifacts", "blocks", "ops", "metrics", "media", "assets"},
    "assets": {"assets"},
    "cuda": set(),
}
"""Part of the house -> parts it may import, itself included; `fourdface` and `fourdface.errors` are open to all."""

OPTIONAL = {
    *("mediapipe", "insightface", "face_alignment", "gsplat", "diffusers", "lpips", "cv2", "onnxruntime", "viser"),
    "tensorboard",
}
INFRASTRUCTURE = {"dispatch", "parallel"}
"""C++ files that are no ops: choice of instruction set, threads."""

MANY_ARGUMENTS = {"fourdface/ops/splat.py:splat"}
"""A renderer of Gaussians takes what all of them take: the Gaussians, the camera, the picture and the settings."""

LONGEST_FILE, LONGEST_FUNCTION, P90_FUNCTION, MOST_ARGUMENTS = 600, 120, 40, 12


@lru_cache(maxsize=1)
def sources() -> dict[Path, ast.Module]:
    """Every Python file of the product with its tree."""
    files = [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "cli").glob("*.py"))]
    return {file.relative_to(ROOT): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def part_of(file: Path) -> str:
    """The part of the house a file belongs to ("" for fourdface/__init__.py and errors.py)."""
    if file.parts[0] == "cli":
        return "cli"
    return file.parts[1] if len(file.parts) > 2 else ""


def imports_of(file: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere, relative ones resolved."""
    package = ("fourdface", *file.parent.parts) if file.parts[0] == "cli" else file.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield file, node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_the_trees_are_not_empty() -> None:
    assert {part_of(file) for file in sources()} >= {"cli", "stages", "methods", "blocks", "ops", "artifacts", "assets"}
    assert sum(1 for _ in functions()) > 100


def test_every_part_has_a_rule() -> None:
    parts = {part_of(file) for file in sources()} - {""}
    assert parts <= set(MAY_IMPORT), f"say in MAY_IMPORT what {parts - set(MAY_IMPORT)} may import"


def test_import_direction() -> None:
    wrong = []
    for file, tree in sources().items():
        part = part_of(file)
        for line, module in imports_of(file, tree):
            names = module.split(".")
            if names[0] != "fourdface" or not part or len(names) == 1:
                continue
            target = names[1]
            if target not in MAY_IMPORT:  # fourdface.errors, fourdface.__version__
                continue
            if not {target, ".".join(names[1:3])} & MAY_IMPORT[part]:
                wrong.append(f"{file}:{line} {part} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_artifacts_need_numpy_and_h5py_alone() -> None:
    allowed = {"numpy", "h5py", "fourdface"}
    wrong = []
    for file, tree in sources().items():
        if part_of(file) != "artifacts" and file.name != "sniff.py":
            continue
        for line, module in imports_of(file, tree):
            name = module.split(".")[0]
            if name not in allowed and name not in _standard_library():
                wrong.append(f"{file}:{line} {module}")
    assert not wrong, "\n".join(wrong)


def _standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names | {"__future__"}


def test_optional_packages_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{file}:{line} {module}"
        for file, tree in sources().items()
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line, module in imports_of(file, ast.Module(body=[node], type_ignores=[]))
        if module.split(".")[0] in OPTIONAL
    ]
    assert not wrong, "import these inside the function that needs them:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("forbidden", "instead"),
    [
        ("print", "raise, return, or use logging (cli/: click.echo)"),
        (".cuda", ".to(device)"),
        ("sys.path", "an import that works for an installed package"),
        ("import *", "names"),
        ("assert", "FourdError for users, ValueError for callers"),
    ],
)
def test_forbidden_words(forbidden: str, instead: str) -> None:
    wrong = []
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if _is_forbidden(node, forbidden):
                wrong.append(f"{file}:{getattr(node, 'lineno', 0)}")
    assert not wrong, f"{forbidden}: use {instead}:\n" + "\n".join(wrong)


def _is_forbidden(node: ast.AST, what: str) -> bool:
    if what == "print":
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    if what == ".cuda":
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    if what == "sys.path":
        return isinstance(node, ast.Attribute) and node.attr == "path" and _is_name(node.value, "sys")
    if what == "import *":
        return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    return isinstance(node, ast.Assert)


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_the_forbidden_are_recognised() -> None:
    """The checks above can fail: each finds its example."""
    examples = {
        "print": "print(1)",
        ".cuda": "x.cuda()",
        "sys.path": "sys.path.insert(0, '')",
        "import *": "from os import *",
        "assert": "assert x",
    }
    for what, code in examples.items():
        assert any(_is_forbidden(node, what) for node in ast.walk(ast.parse(code))), what


def test_no_file_is_too_long() -> None:
    counts = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in sources()}
    assert not (long := {str(file): count for file, count in counts.items() if count > LONGEST_FILE}), long


def test_no_function_is_too_long_or_takes_too_much() -> None:
    wrong = []
    for file, node in functions():
        arguments = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
        if length(node) > LONGEST_FUNCTION:
            wrong.append(f"{file}:{node.lineno} {node.name} has {length(node)} lines")
        # A click command takes one argument for each of its options, and hands them on as one object.
        known = (part_of(file) == "cli" and node.name == "command") or f"{file}:{node.name}" in MANY_ARGUMENTS
        if arguments > MOST_ARGUMENTS and not known:
            wrong.append(f"{file}:{node.lineno} {node.name} takes {arguments} arguments")
    assert not wrong, "\n".join(wrong)


def test_nine_of_ten_functions_are_short() -> None:
    lengths = sorted(length(node) for _, node in functions())
    assert lengths[int(len(lengths) * 0.9)] <= P90_FUNCTION


def test_public_functions_are_annotated_and_documented() -> None:
    wrong = []
    for file, tree in sources().items():
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for owner in [tree, *classes]:
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                    continue
                overloaded = any(_is_name(decorator, "overload") for decorator in node.decorator_list)
                if node.returns is None or not (ast.get_docstring(node) or overloaded):
                    wrong.append(f"{file}:{node.lineno} {node.name}")
    assert not wrong, "without return annotation or docstring:\n" + "\n".join(wrong)


def kernels() -> list[str]:
    stems = {file.name.removesuffix("_cpu.cpp") for file in (ROOT / "cuda").glob("*_cpu.cpp")}
    stems |= {file.stem for file in (ROOT / "cuda").glob("*.cu")}
    return sorted(stems - INFRASTRUCTURE)


def test_there_are_kernels() -> None:
    assert "splat" in kernels()


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_has_contract_reference_and_test(name: str) -> None:
    assert (ROOT / "cuda" / f"{name}.h").is_file(), "the contract belongs in the header"
    module = sources()[Path("fourdface/ops") / f"{name}.py"]
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    imported = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    names |= {alias.asname or alias.name for node in imported for alias in node.names}
    assert {name, f"{name}_reference"} <= names
    test = ROOT / "tests" / "ops" / f"test_{name}.py"
    assert test.is_file() and "reference" in test.read_text(encoding="utf-8")


def test_no_two_native_files_share_a_stem() -> None:
    stems = [file.stem for file in (ROOT / "cuda").iterdir() if file.suffix in (".cpp", ".cu")]
    assert len(stems) == len(set(stems))


def test_every_command_has_a_test() -> None:
    """A file of its own in tests/cli/, or a call with its name as an argument somewhere in the tests."""
    from fourdface.cli.main import COMMANDS

    tests = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests").rglob("test_*.py")))
    for name, (module, _) in COMMANDS.items():
        stem = module.partition(":")[0].rpartition(".")[2]
        direct = (ROOT / "tests" / "cli" / f"test_{stem}.py").is_file()
        assert direct or f'"{name}"' in tests, f"no test runs `fourd {name}`"


def test_nothing_large_is_in_the_repository() -> None:
    """No file above 16 MB: data and large weights have other places."""
    import subprocess

    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert not [str(file) for file in files if file.is_file() and file.stat().st_size > 16 << 20]
