"""Draws the rooms of the package and what stands on what, as docs/images/rooms.svg.

    python tools/draw_rooms.py

A room is a folder of ``src/garnish``, or a file beside them. It stands on the floor above the highest room that it
imports, so that nothing on one floor imports a neighbour. A line is drawn to each room that is not already reached
through another; pointing at a room in a browser says what is in it.
"""

from __future__ import annotations

import ast
import re
import textwrap
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "garnish"
DRAWING = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, MARGIN, GAP, FLOOR_GAP = 1180, 16, 14, 34
NAME, LINE, LETTER = 22, 14, 6.3
#: files that say nothing of the house
LEFT_OUT = {"__init__", "__main__", "moved"}


def rooms() -> dict[str, list[Path]]:
    """Room → its Python files; a file beside the folders is a room of its own."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(SRC.iterdir()):
        if entry.is_dir() and (entry / "__init__.py").is_file():
            found[entry.name] = sorted(entry.rglob("*.py"))
        elif entry.suffix == ".py" and entry.stem not in LEFT_OUT:
            found[entry.stem] = [entry]
    return found


def stands_on(files: list[Path], known: set[str], own: str) -> set[str]:
    """The rooms that files import, when they are loaded or when they are called."""
    found = set()
    for file in files:
        tree = ast.parse(file.read_text("utf-8"))
        # a model's delegates import what lies above it, when they are called
        for node in tree.body if file == SRC / "model" / "model.py" else ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("garnish"):
                parts = str(node.module).split(".")
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & known - {own}


@cache
def graph() -> dict[str, set[str]]:
    """Room → the rooms that it imports."""
    known = rooms()
    return {name: stands_on(files, set(known), name) for name, files in known.items()}


@cache
def floor(room: str) -> int:
    """0 where nothing is imported, else one above the highest that is."""
    return max((floor(other) + 1 for other in graph()[room]), default=0)


@cache
def below(room: str) -> frozenset[str]:
    """All rooms that are reached from one."""
    return frozenset(graph()[room]).union(*(below(other) for other in graph()[room]))


def direct(room: str) -> list[str]:
    """Imported rooms that no other imported room reaches."""
    return sorted(o for o in graph()[room] if not any(o in below(other) for other in graph()[room] - {o}))


def contents(room: str) -> list[str]:
    """Names of a room's files, those of its inner rooms behind the room's name."""
    names: dict[str, list[str]] = {}
    for file in rooms()[room]:
        inner = file.parent.relative_to(SRC / room).as_posix() if file.parent != SRC else "."
        if file.stem != "__init__" and file.parent != SRC:
            names.setdefault("" if inner == "." else f"{inner}/ ", []).append(file.stem)
    return [prefix + ", ".join(stems) for prefix, stems in names.items()]


def purpose(room: str) -> str:
    """First line of what a room says of itself."""
    first = next((f for f in rooms()[room] if f.stem == "__init__"), rooms()[room][0])
    line = str(ast.get_docstring(ast.parse(first.read_text("utf-8")))).splitlines()[0]
    return re.sub(r":\w+:|`", "", line)


def draw() -> str:
    """The drawing, as SVG."""
    floors: dict[int, list[str]] = {}
    for name in rooms():
        floors.setdefault(floor(name), []).append(name)
    places: dict[str, tuple[float, float, float, float]] = {}
    text: dict[str, list[tuple[str, str]]] = {}
    y = float(MARGIN)
    for level in sorted(floors, reverse=True):
        names = floors[level]
        weight = {n: max(150.0, min(1.0 * sum(map(len, contents(n))) * 2.2, 640.0)) for n in names}
        free = WIDTH - 2 * MARGIN - GAP * (len(names) - 1)
        wide = {n: min(weight[n] / sum(weight.values()) * free, 760.0) for n in names}
        x = (WIDTH - sum(wide.values()) - GAP * (len(names) - 1)) / 2
        for n in names:
            columns = int((wide[n] - 20) / LETTER)
            text[n] = [("purpose", line) for line in textwrap.wrap(purpose(n), columns)]
            text[n] += [("file", line) for part in contents(n) for line in textwrap.wrap(part, columns)]
        tall = max(NAME + 12 + LINE * len(text[n]) for n in names)
        for n in names:
            places[n] = (x, y, wide[n], tall)
            x += wide[n] + GAP
        y += tall + FLOOR_GAP
    height = y - FLOOR_GAP + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        ' aria-label="The rooms of the package: each stands on those below it">',
        "<style>text{font:11px system-ui,sans-serif;fill:#24292f}.name{font-size:15px;font-weight:600}"
        ".purpose{fill:#57606a;font-style:italic}.file{font-size:10.5px}rect{fill:#f6f8fa;stroke:#8c959f}"
        "path{fill:none;stroke:#8c959f;stroke-opacity:.55}.paper{fill:#fff;stroke:none}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.purpose{fill:#9198a1}rect{fill:#161b22;stroke:#59636e}"
        "path{stroke:#8b949e}.paper{fill:#0d1117}}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>',
    ]
    for name, (x, y, wide, tall) in places.items():
        for other in direct(name):
            ox, oy, owide, _ = places[other]
            start, end = x + wide / 2, ox + owide / 2
            parts.append(
                f'<path d="M{start:.1f} {y + tall:.1f}C{start:.1f} {y + tall + 24:.1f} {end:.1f} {oy - 24:.1f}'
                f' {end:.1f} {oy:.1f}"/>'
            )
    for name, (x, y, wide, tall) in places.items():
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="6"/>')
        label = f"{name}/" if (SRC / name).is_dir() else f"{name}.py"
        parts.append(f'<text class="name" x="{x + 10:.1f}" y="{y + NAME:.1f}">{escape(label)}</text>')
        for number, (style, line) in enumerate(text[name]):
            at = y + NAME + 5 + LINE * (number + 1) - 3
            parts.append(f'<text class="{style}" x="{x + 10:.1f}" y="{at:.1f}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(draw(), encoding="utf-8")
    print(DRAWING.relative_to(ROOT))
