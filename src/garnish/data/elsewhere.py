"""Pictures of other splits that a shared file of labels holds too."""

from __future__ import annotations

from pathlib import Path

from garnish.data.description import Description
from garnish.errors import DataError


def words_elsewhere(description: Description, task: str, split: str, file: Path) -> list[str]:
    """:meth:`Description.word` of the pictures of other splits whose label is in a file that a split reads.

    A file without folders in its names (``1.jpg``) would else give ``val/1.jpg`` the label of ``train/1.jpg``, and
    nothing in one split alone tells of that. Splits that cannot be listed are left aside; who opens them is told why.

    Args:
        description: of the set.
        task: whose labels the file holds.
        split: that was opened; its own pictures are left out, wherever else they are listed.
        file: of the labels.
    """
    if not description.tasks[task].labels.shared:
        return []
    own = {path for _, path in description.pictures(split)}
    found = []
    for other in description.known_splits():
        try:
            pictures = [] if other == split else description.pictures(other)
            found += [
                description.word(task, name, path)
                for name, path in pictures
                if path not in own
                and file in description.label_places(task, other, name)
                and description.label_file(task, other, name, path) == file
            ]
        except DataError:
            continue
    return found
