"""The packages have one direction: each imports only those above it in its list, and no modules import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What lies in the folder itself comes first, for everybody to use; what starts the program comes last.
ORDER = {
    "sparkfleet": (
        *("", "catalog", "release", "preflight", "inventory", "rollout", "report", "node", "artefacts", "deploy"),
        *("interop", "cli", "__main__"),
    ),
    "sparknode": (
        *("", "base", "state", "host", "engine", "gates", "models", "activate", "facts", "watchdog", "readiness"),
        *("cli", "__main__"),
    ),
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ORDER
    for path in sorted((ROOT / top).rglob("*.py"))
}


def package(module: str) -> str:
    """Return the package that a module is in; what starts the program stands for itself."""
    top, *rest = module.split(".")
    return rest[0] if len(rest) > 1 or (ROOT / top / "/".join(rest)).is_dir() or rest[0] in ORDER[top] else ""


def imported(node: ast.AST, module: str) -> Iterator[str]:
    """Yield what an import statement brings of this project, as modules."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = module.split(".")[: -node.level] if node.level else []
        parent = ".".join([*above, *filter(None, [node.module])])
        names = [f"{parent}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        found = name if name in MODULES else name.rpartition(".")[0]
        if found in MODULES and "." in found:
            yield found


def arrows(module: str, *, only_when_run: bool = False) -> set[str]:
    """Return which modules a module imports anywhere in it; or those alone that it imports while it is loaded."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = tree.body if only_when_run else ast.walk(tree)
    return {name for node in nodes for name in imported(node, module)} - {module}


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_a_package_imports_only_those_above_it(module: str) -> None:
    top = module.partition(".")[0]
    order = ORDER[top]
    for name in arrows(module):
        if top == "sparkfleet" and name.startswith("sparknode."):
            continue
        assert name.startswith(f"{top}."), f"{MODULES[module]} imports {name}: the node knows nothing of the controller"
        assert order.index(package(name)) <= order.index(package(module)), f"{MODULES[module]} imports {name}, upwards"


def test_no_modules_import_each_other_while_they_are_loaded() -> None:
    graph = {name: arrows(name, only_when_run=True) for name in MODULES if "." in name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("top", ORDER)
def test_every_folder_is_in_the_order_and_says_what_it_is_for(top: str) -> None:
    folders = [path.name for path in (ROOT / top).iterdir() if (path / "__init__.py").exists()]
    assert sorted(folders) == sorted(set(ORDER[top]) - {"", "cli", "__main__"} | ({"cli"} & set(folders)))
    for name in folders:
        said = ast.get_docstring(ast.parse((ROOT / top / name / "__init__.py").read_text(encoding="utf-8"))) or ""
        above = [one for one in ORDER[top][: ORDER[top].index(name)] if one]
        assert said.partition("\n")[0].endswith("."), name
        for one in above:
            assert f"`{one}`" in said, f"{top}/{name}/__init__.py does not name {one}, which it may import"


def test_unit_tests_lie_where_their_modules_do() -> None:
    for top in ORDER:
        for path in sorted((ROOT / "tests/unit" / top).iterdir()):
            if path.is_dir() and path.name != "__pycache__":
                assert (ROOT / top / path.name).is_dir(), f"{path} has tests of no package"
