"""Series: files of one pattern, by split and by the name of their picture, found among the files of a folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import final

from garnish.data.guessing.words import is_affix, is_view, meaning_of, picture_rank, with_split
from garnish.data.patterns import stays_below


@final
@dataclass(frozen=True)
class FileSeries:
    """Files of one pattern.

    Attributes:
        base: the folders of the pattern, with a ``/`` behind each: "images/{split}/", "".
        tail: the pattern between the name and the ending: "_leftImg8bit", "".
        endings: of the files, each as it is written there: ".png".
        names: the word that ``{split}`` stands for ("" where the pattern has none) → name → relative path.
        nested: whether names hold folders.
        before: the pattern between the folders and the name: "depth_".
        template: how a description names the files where a table says which they are: "{mask_file_name}"; None: by
            the pattern.
    """

    base: str
    tail: str
    endings: tuple[str, ...]
    names: Mapping[str, Mapping[str, str]]
    nested: bool = False
    before: str = ""
    template: str | None = None

    @property
    def pattern(self) -> str:
        """The template of the files, with the first of the endings."""
        if self.template is not None:
            return self.template
        return f"{self.base}{self.before}{{name}}{self.tail}{self.endings[0]}"

    @property
    def folder(self) -> str:
        """The folder of the files without ``{split}`` and names, for messages; "the folder itself" if there is none."""
        return self.base.rpartition("/")[0] or "the folder itself"

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(map(len, self.names.values()))

    @property
    def has_split(self) -> bool:
        """Whether files are those of a split each, by their pattern or by a table."""
        return "" not in self.names


def series_of(files: Iterable[str], endings: Sequence[str]) -> list[FileSeries]:
    """The series among files that end in one of some endings (lower case, with their dot), larger ones first."""
    folders: dict[tuple[str, bool], list[tuple[str, str, str, str]]] = defaultdict(list)
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() not in endings or not stays_below(file) or re.search(r"[*?{}]", file):
            continue
        head, split, inner = _placed(path.parts[:-1])
        folders[head, bool(inner)].append((split, inner, path.stem, file))
    # files directly in a folder and those in folders below it are one series where both are there
    for head, nested in list(folders):
        if nested and (head, False) in folders:
            folders[head, True] += folders.pop((head, False))
    found = [one for (head, nested), entries in folders.items() for one in _by_affix(head, nested, entries)]
    return sorted(found, key=lambda one: (-one.count, one.pattern))


def _placed(parts: Sequence[str]) -> tuple[str, str, str]:
    """Of the folders that lead to a file: those of the pattern, the word of the split, and those of the name."""
    found = [with_split(part) for part in parts]
    at = next((k for k, one in enumerate(found) if one is not None), None)
    telling = [k for k, part in enumerate(parts) if _tells(part)]
    last = max([k for k in (at, *telling[-1:]) if k is not None], default=None)
    if last is None:
        last = len(parts) - 1  # nothing says where names begin: all folders are the pattern's
    fixed, split = list(parts[: last + 1]), ""
    if at is not None and at <= last:
        told = found[at]
        assert told is not None
        fixed[at], split = told
    inner = "".join(f"{part}/" for part in parts[last + 1 :])
    return "".join(f"{part}/" for part in fixed), split, inner


def _tells(part: str) -> bool:
    return meaning_of(part) is not None or picture_rank(part) is not None or is_view(part)


def _by_affix(head: str, nested: bool, entries: list[tuple[str, str, str, str]]) -> list[FileSeries]:
    """Split the files of a folder by words at the start or the end of their names: ``_mask``, ``depth_``."""
    cuts: dict[tuple[str, str], list[tuple[str, str, str, str]]] = defaultdict(list)
    bases: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for split, inner, stem, file in entries:
        before, name, after = _cut(stem)
        if nested and before:  # a word before the name cannot stand after folders that belong to the name
            before, name = "", before + name
        cuts[before, after].append((split, inner, stem, file))
        bases[split, inner + name].add((before, after))
    kept: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for (before, after), group in cuts.items():
        usual = len(group) >= max(3, len(entries) // 3) or len(group) == len(entries)
        for split, inner, stem, file in group:
            name = stem[len(before) : len(stem) - len(after)]
            # a word in a single name is part of it, unless the name without it is there as well
            cut = (before or after) and (usual or len(bases[split, inner + name]) > 1)
            kept[(before, after) if cut else ("", "")].append((split, inner + (name if cut else stem), file))
    made = []
    for (before, after), kinds in kept.items():
        names: dict[str, dict[str, str]] = defaultdict(dict)
        endings: Counter[str] = Counter()
        for split, name, file in sorted(kinds):
            names[split].setdefault(name, file)
            endings[PurePosixPath(file).suffix] += 1
        ordered = tuple(ending for ending, _ in sorted(endings.items(), key=lambda one: (-one[1], one[0])))
        made.append(FileSeries(head, after, ordered, names, nested, before))
    return made


def _cut(stem: str) -> tuple[str, str, str]:
    """A stem as a word before the name, the name, and words after it, with their separators."""
    name, after = stem, ""
    while match := re.fullmatch(r"(.*[^_\-. ])([_\-. ]+)([A-Za-z][A-Za-z0-9]*)", name):
        if not is_affix(match[3]) and not (after and match[3].lower() in ("gtfine", "gtcoarse", "full", "color")):
            break
        name, after = match[1], match[2] + match[3] + after
    if after:
        return "", name, after
    if match := re.fullmatch(r"([A-Za-z]+)([_\-. ]*)(.+)", stem):
        word = match[1]
        if is_affix(word) and (match[2] or match[3][:1].isdigit()):
            return word + match[2], match[3], ""
    return "", stem, ""


def same_words(one: str, other: str) -> bool:
    """Whether two names are alike but for case, separators and leading zeros."""
    plain = [
        [part.lstrip("0") or "0" if part.isdigit() else part for part in re.findall(r"[^\W\d_]+|\d+", text.lower())]
        for text in (one, other)
    ]
    return plain[0] == plain[1]
