"""The architecture, read from the files: who imports whom, how long files are, what may be subclassed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import garnish
from garnish import registry

SRC = Path(garnish.__file__).parent

#: rooms from the ground up: folder, or files that lie beside the folders; imports go only to a lower or the same room
ROOMS = [
    ("ground", {"__init__", "errors", "moved", "output", "registry", "checking"}),
    ("files", set()),
    ("pictures", set()),
    ("stores", set()),  # folders elsewhere: object stores, by fsspec
    ("drawing", set()),
    ("decodings", set()),
    ("reporting", set()),  # live lines, pages, charts
    ("tiles", set()),
    ("predicting", set()),  # many pictures, of a model or of an exported folder
    ("engine", set()),
    ("backbones", set()),
    ("adapters", set()),
    ("heads", set()),
    ("targets", set()),
    ("tasks", set()),
    ("balancing", set()),
    ("model", set()),
    ("hub", set()),  # addresses of bundles on the Hub, and downloads
    ("bundles", set()),
    ("sharing", set()),  # to the Hub and from it, with a card
    ("runtime", set()),
    ("page", set()),  # what export writes beside a graph, and a server serves
    ("data", set()),
    ("doctor", set()),  # what is wrong with a data set
    ("training", set()),
    ("exporting", set()),  # the certificate measures a file on labelled pictures as training does
    ("planning", set()),
    ("recipes", set()),
    ("comparing", set()),
    ("cluster", set()),  # the seams to Ray; nothing else imports it
    ("serving", {"client"}),  # many bundles for many requests
    ("top", {"__main__", "cli", "commands", "demo"}),
]
RANK = {room: number for number, (room, _) in enumerate(ROOMS)}
#: (importing file, imported module) allowed under ``if TYPE_CHECKING`` although it points upward or in a circle
TYPES_ONLY: set[tuple[str, str]] = set()
#: (importing file, imported module) allowed inside a function: delegates of ``Model`` ask for what lies above it
LAZY = {
    ("model/model.py", "garnish.bundles.bundle"),
    ("model/model.py", "garnish.model.predict"),
    ("model/model.py", "garnish.model.predict_many"),
    ("model/model.py", "garnish.model.report"),
}
MOST_LINES = 300


def files() -> dict[str, ast.Module]:
    return {p.relative_to(SRC).as_posix(): ast.parse(p.read_text("utf-8")) for p in sorted(SRC.rglob("*.py"))}


def room_of(module: str) -> str:
    """Room of ``garnish.adapters.lora`` or ``garnish.model.model``."""
    first = module.split(".")[1]
    for room, names in ROOMS:
        if first == room or first in names:
            return room
    raise AssertionError(f"{module} lies in no room; add it to ROOMS in tests/test_layers.py")


def module_of(file: str) -> str:
    return "garnish." + file.removesuffix(".py").replace("/", ".")


def imported(node: ast.stmt) -> list[str]:
    """Modules of ours that a statement imports; ``from garnish import save`` imports the module that defines it."""
    if isinstance(node, ast.Import):
        return [a.name for a in node.names if a.name.split(".")[0] == "garnish"]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        return ["." * node.level + (node.module or "")]
    if (node.module or "").split(".")[0] != "garnish":
        return []
    return [defining(str(node.module), alias.name) for alias in node.names]


def defining(module: str, name: str) -> str:
    """The module that ``from module import name`` leads to."""
    base = SRC.joinpath(*module.split(".")[1:])
    if (base / name).is_dir() or (base / f"{name}.py").is_file():
        return f"{module}.{name}"
    if module != "garnish":
        return module
    if name == "__version__":
        return "garnish.__init__"
    return garnish._PUBLIC.get(name) or getattr(garnish, name).__module__


def imports(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, how) of each import of ours; how is "plain", "types" or "lazy"."""
    found: list[tuple[str, str]] = []

    def walk(nodes: list[ast.stmt], how: str) -> None:
        for node in nodes:
            found.extend((module, how) for module in imported(node))
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                walk(node.body, "types")
                walk(node.orelse, how)
                continue
            inner = "lazy" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else how
            for field in ("body", "orelse", "finalbody"):
                walk([n for n in getattr(node, field, []) if isinstance(n, ast.stmt)], inner)
            for handler in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                walk(handler.body, inner)

    walk(tree.body, "plain")
    return found


def wrong_imports(trees: dict[str, ast.Module], named: dict[str, set[str]]) -> list[str]:
    """Every import that goes up, or sideways between two files that define what can be named."""
    wrong = []
    for file, tree in trees.items():
        own = room_of(module_of(file))
        for module, how in imports(tree):
            if (file, module) in {"types": TYPES_ONLY, "lazy": LAZY}.get(how, set()):
                continue
            if module.startswith(".") or module == "garnish":
                wrong.append(f"{file} imports {module}; write out the module")
                continue
            if RANK[room_of(module)] > RANK[own]:
                wrong.append(f"{file} imports {module}, which lies above it")
            siblings = named.get(own, set())
            if module_of(file) in siblings and module in siblings - {module_of(file)}:
                wrong.append(f"{file} imports its sibling {module}")
    return wrong


def named_modules() -> dict[str, set[str]]:
    return {kind: {c.__module__ for c in registry.classes(kind).values()} for kind in registry.KINDS}


def test_imports_go_down_only():
    assert wrong_imports(files(), named_modules()) == []


def circles(trees: dict[str, ast.Module]) -> list[list[str]]:
    """Groups of modules that import each other, for types alone too; the delegates of :data:`LAZY` left out."""
    graph = {
        module_of(file): {module for module, how in imports(tree) if not (how == "lazy" and (file, module) in LAZY)}
        for file, tree in trees.items()
    }
    order: list[str] = []
    seen: set[str] = set()

    def visit(start: str, edges: dict[str, set[str]], found: list[str]) -> None:
        stack = [(start, iter(sorted(edges.get(start, ()))))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            after = next((n for n in rest if n in edges and n not in seen), None)
            if after is None:
                found.append(node)
                stack.pop()
            else:
                seen.add(after)
                stack.append((after, iter(sorted(edges[after]))))

    for module in graph:
        if module not in seen:
            visit(module, graph, order)
    back: dict[str, set[str]] = {module: set() for module in graph}
    for module, others in graph.items():
        for other in others & graph.keys():
            back[other].add(module)
    seen.clear()
    groups = []
    for module in reversed(order):
        if module not in seen:
            group: list[str] = []
            visit(module, back, group)
            groups.append(sorted(group))
    return [group for group in groups if len(group) > 1 or group[0] in graph[group[0]]]


def test_no_modules_import_each_other():
    assert circles(files()) == []


def test_a_planted_circle_is_caught():
    trees = files()
    trees["errors.py"] = ast.parse("if TYPE_CHECKING:\n    from garnish.checking.arguments import Options")
    assert any("garnish.errors" in group and "garnish.checking.arguments" in group for group in circles(trees))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("backbones/new.py", "from garnish.adapters.lora import LoRA"),
        ("adapters/lora.py", "from garnish.adapters.bottleneck import Houlsby"),
        ("adapters/lora.py", "import garnish.adapters.bottleneck as b"),
        ("heads/new.py", "def f():\n    from garnish.model.model import Model"),
        ("tasks/new.py", "if TYPE_CHECKING:\n    from garnish.model.model import Model"),
        ("model/model.py", "try:\n    from garnish.data import folder\nexcept ImportError:\n    pass"),
        ("model/new.py", "from garnish import save"),
        ("backbones/new.py", "from garnish import LoRA, errors, __version__"),
        ("heads/new.py", "import garnish"),
        ("engine/context.py", "from garnish.backbones import vit"),
        ("adapters/new.py", "from .lora import LoRA"),
        ("tasks/new.py", "class A:\n    def f(self):\n        with x:\n            import garnish.training.fit"),
    ],
)
def test_a_planted_import_is_caught(file, text):
    assert len(wrong_imports({file: ast.parse(text)}, named_modules())) == 1


def test_allowed_exceptions_are_in_use():
    found = {(file, module, how) for file, tree in files().items() for module, how in imports(tree)}
    assert {(f, m) for f, m, how in found if how == "types"} >= TYPES_ONLY
    assert {(f, m) for f, m, how in found if how == "lazy"} >= LAZY


def test_files_are_short_and_named_for_what_they_hold():
    for path in SRC.rglob("*.py"):
        assert path.stem not in ("utils", "util", "helpers", "helper", "misc", "common"), path
        lines = len(path.read_text("utf-8").splitlines())
        name = path.relative_to(SRC).as_posix()
        assert lines <= MOST_LINES, f"{name}: {lines} lines; split it by idea"


def own_classes() -> list[type]:
    found = {}
    for info in pkgutil.walk_packages([str(SRC)], "garnish."):
        if info.name.endswith(".__main__"):
            continue
        module = importlib.import_module(info.name)
        found.update({c: None for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__})
    return list(found)


def extended(classes: list[type]) -> list[str]:
    """Classes that derive from a concrete one of ours; errors are names only and may form a tree."""
    ours = set(classes)
    return [
        f"{c.__module__}.{c.__name__} extends {base.__name__}"
        for c in classes
        for base in c.__bases__
        if base in ours and not inspect.isabstract(base) and not issubclass(c, BaseException) and not is_open(base)
    ]


def is_open(base: type) -> bool:
    """A base that is abstract by its declaration although no method of it must be given (``Adapter``)."""
    return any(b.__name__ in ("ABC", "Protocol") for b in base.__bases__)


def test_classes_are_abstract_or_final():
    assert extended(own_classes()) == []


def test_a_subclass_of_a_concrete_class_is_caught():
    from garnish.adapters.lora import LoRA

    class Mine(LoRA):
        pass

    assert len(extended([LoRA, Mine])) == 1


IMPORTS_NO_TORCH = "import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"


def test_the_package_does_not_import_torch():
    subprocess.run([sys.executable, "-c", IMPORTS_NO_TORCH.format(module="garnish")], check=True)


@pytest.mark.skipif(not (SRC / "cli.py").exists(), reason="there is no command line yet")
def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom garnish.cli import main\nsys.argv = ['garnish', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "train" in out.stdout


def defined() -> dict[str, list[str]]:
    """Public class or function → the files that define it."""
    found: dict[str, list[str]] = {}
    for file, tree in files().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(file)
    return found


def test_no_name_stands_for_two_things():
    several = {name: where for name, where in defined().items() if len(where) > 1}
    assert set(several) == {"parser", "run"}  # what every verb has
    assert all(file.startswith("commands/") for where in several.values() for file in where)


def test_few_files_lie_beside_the_rooms():
    assert len(list(SRC.glob("*.py"))) <= 9
    lengths = sorted(len(path.read_text("utf-8").splitlines()) for path in SRC.rglob("*.py") if path.stem != "__init__")
    assert lengths[len(lengths) // 2] <= 120
