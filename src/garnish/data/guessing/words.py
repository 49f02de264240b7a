"""What the usual names of folders and endings of names say: pictures, which kind of label, which split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

#: Names of folders with pictures, the usual ones first.
PICTURES = (
    *("images", "imgs", "rgb", "image", "img", "jpegimages", "leftimg8bit", "pictures", "photos", "photo", "frames"),
    *("color", "colour", "input", "inputs", "original", "originals"),
)
#: What is made to be looked at and is neither picture nor label.
VIEWS = (
    *("overlay", "overlays", "vis", "viz", "visualization", "visualizations", "visualisation", "preview", "previews"),
    *("thumbnail", "thumbnails", "segmentationclassvisualization"),
)
#: Splits, and the words that stand for them.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@final
@dataclass(frozen=True)
class Meaning:
    """What a word says of labels.

    Attributes:
        task: name of the task's class; "Instances" for numbers of objects, which no task learns as they are.
        name: what the task is called in a description.
        generic: whether the word is one for labels of any kind ("labels"), so that it is weak evidence of the task.
    """

    task: str
    name: str
    generic: bool = False


_INSTANCES = Meaning("Instances", "instances")
#: From the most to the least telling.
_MEANINGS: tuple[tuple[Meaning, tuple[str, ...]], ...] = (
    (
        _INSTANCES,
        ("instance", "instances", "instanceid", "instanceids", "segmentationobject", "panoptic", "objectids"),
    ),
    (Meaning("RelativeDepth", "depth"), ("disparity", "disparities", "disp", "inversedepth", "relativedepth")),
    (Meaning("Depth", "depth"), ("depth", "depths", "depthmap", "depthmaps", "zdepth")),
    (Meaning("Normals", "normals"), ("normals", "normal", "normalmap", "normalmaps", "surfacenormals")),
    (Meaning("Edges", "edges"), ("edges", "edge", "boundaries", "boundary", "contours", "contour")),
    (Meaning("Saliency", "saliency"), ("saliency", "salient", "sal")),
    (Meaning("Semantic", "parts"), ("parts", "humanparts", "part")),
    (
        Meaning("Semantic", "seg"),
        (
            *("semantic", "semantics", "seg", "segs", "segmentation", "segmentations", "segmentationclass", "semseg"),
            *("segmentationclasspng", "segmentationclassraw", "labelids", "labeltrainids", "trainids", "classes"),
        ),
    ),
    (
        Meaning("Semantic", "seg", generic=True),
        (
            *("masks", "mask", "labels", "label", "annotations", "annotation", "annot", "annots", "gt", "groundtruth"),
            *("gtfine", "target", "targets", "truth"),
        ),
    ),
)
_MEANING = {word: meaning for meaning, words in _MEANINGS for word in words}
_RANK = {meaning: rank for rank, (meaning, _) in enumerate(_MEANINGS)}
_SPLIT = {word: split for split, words in SPLITS.items() for word in words}
_SPLIT_PART = re.compile(
    r"(?P<before>(?:.*[_\-. ])?)(?P<split>(?:training|train|validation|valid|val|testing|test)(?:\d{4})?)"
    r"(?P<after>(?:[_\-. ].*|annot|_?masks?|_?labels?)?)",
    re.IGNORECASE,
)


def split_of(word: str) -> str | None:
    """The split that a folder of this name is: "val" for "Validation" and "val2017"; None: of none."""
    return _SPLIT.get(re.sub(r"\d{4}$", "", word.lower()))


def with_split(part: str) -> tuple[str, str] | None:
    """A folder's name with ``{split}`` in it, and what that is: ``train_masks`` → ("{split}_masks", "train")."""
    match = _SPLIT_PART.fullmatch(part)
    if match is None or "{" in part or split_of(match["split"]) is None:
        return None
    return f"{match['before']}{{split}}{match['after']}", match["split"]


def words_of_place(text: str) -> list[str]:
    """The words of a name: parts between separators, and pairs of these: ``gt_labelIds`` → gt, labelids, gtlabelids."""
    parts = [
        part.lower() for part in re.split(r"[^A-Za-z0-9]+", text.replace("{split}", "").replace("{name}", "")) if part
    ]
    joined = ["".join(parts[k : k + 2]) for k in range(len(parts) - 1)]
    return [*(re.sub(r"\d+$", "", part) or part for part in parts), *joined]


def meaning_of(place: str) -> Meaning | None:
    """What a pattern or the name of a folder says of labels: the last part that says anything is heeded."""
    for part in reversed(re.sub(r"\.[A-Za-z]+$", "", place).split("/")):
        found = [_MEANING[word] for word in words_of_place(part) if word in _MEANING]
        if found:
            return min(found, key=_RANK.__getitem__)
    return None


def picture_rank(place: str) -> int | None:
    """How usual a pattern is for pictures: 0 the most; None: no word says that it leads to pictures, or one says no."""
    if meaning_of(place) is not None or is_view(place):
        return None
    ranks = [
        PICTURES.index(word)
        for part in re.sub(r"\.[A-Za-z]+$", "", place).split("/")
        for word in words_of_place(part)
        if word in PICTURES
    ]
    return min(ranks, default=None)


def is_view(place: str) -> bool:
    """Whether a pattern leads to what is made to be looked at: overlays, previews."""
    return any(word in VIEWS for part in place.split("/") for word in words_of_place(part))


def is_affix(word: str) -> bool:
    """Whether a word at the end or the start of names tells kinds of files apart."""
    plain = {word.lower(), re.sub(r"[^a-z]", "", word.lower())}
    return any(one in _MEANING or one in PICTURES or one in VIEWS for one in plain)
