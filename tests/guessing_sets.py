"""Tiny sets in the layouts that people have, made with the numbers that every pixel of a label must become.

Each function lays out a folder and returns task → name of a picture → its target, in the task's own numbers; ids are
those of ``annotation_samples`` (0 nothing, 1 road, 2 car, 3 tree), which come from a formula.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

import annotation_samples

#: an odd (H, W)
SIZE = (37, 53)
Truth = dict[str, dict[str, np.ndarray]]
#: Names of two groups, so that some can be held out.
NAMES = [f"{place}_{number:03d}" for place in ("park", "road") for number in range(4)]
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (220, 20, 60), (20, 160, 30)], np.uint8)


def put(file: Path, values: np.ndarray, palette: np.ndarray | None = None, **options) -> np.ndarray:
    """Write an array as a picture or as .npy, and return it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, values)
        return values
    image = Image.fromarray(values)
    if palette is not None:
        image = image.convert("P") if image.mode != "L" else image
        image.putpalette(palette.ravel().tolist())
    image.save(file, **options)
    return values


def photo(file: Path, number: int) -> np.ndarray:
    """Write a picture, and return its ids."""
    return annotation_samples.write_picture(file, number, SIZE)


def ids(number: int) -> np.ndarray:
    """(H, W) uint8 ids 0 to 3."""
    return annotation_samples.true_ids(number, SIZE)


def depth_mm(number: int) -> np.ndarray:
    """(H, W) uint16 millimetres: a floor that comes nearer, a car before it, a corner without a label."""
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    depth = 3100 - 40 * row + 7 * column + 13 * number - 300 * (ids(number) == 2)
    depth[:2, :2] = 0
    return depth.astype(np.uint16)


def normals(number: int) -> np.ndarray:
    """(3, H, W) float64 unit vectors, x right, y down, z forward, of a bulge that faces the camera."""
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    x, y = (column / SIZE[1] - 0.5) * -(1.0 + 0.1 * number), (row / SIZE[0] - 0.5) * -1.4
    vectors = np.stack([x, y, -np.ones(SIZE)])
    return vectors / np.linalg.norm(vectors, axis=0)


def edges(number: int) -> np.ndarray:
    """(H, W) bool: where the pixel to the right or below has another id."""
    found = np.zeros(SIZE, bool)
    values = ids(number)
    found[:, :-1] |= values[:, 1:] != values[:, :-1]
    found[:-1] |= values[1:] != values[:-1]
    return found


def split_folders(root: Path) -> Truth:
    """images/train + labels/train, with ``valid`` and ``test``."""
    truth = {}
    for number, (split, name) in enumerate([(s, n) for s in ("train", "valid", "test") for n in NAMES[:3]]):
        truth[f"{split}_{name}"] = photo(root / f"images/{split}/{split}_{name}.jpg", number)
        put(root / f"labels/{split}/{split}_{name}.png", ids(number))
    return {"seg": truth}


def folders_in_splits(root: Path) -> Truth:
    """training/imgs + training/masks in colours, and validation."""
    truth = {}
    for number, (split, name) in enumerate([(s, n) for s in ("training", "validation") for n in NAMES[:4]]):
        truth[f"{split}{name}"] = photo(root / f"{split}/imgs/{split}{name}.jpg", number)
        put(root / f"{split}/masks/{split}{name}.png", COLOURS[ids(number)])
    return {"seg": truth}


def flat_binary(root: Path) -> Truth:
    """images + masks of 0 and 255."""
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = (photo(root / f"images/{name}.jpg", number) == 1).astype(np.uint8)
        put(root / f"masks/{name}.png", truth[name] * 255)
    return {"seg": truth}


def coco_files_of_splits(root: Path) -> Truth:
    """images/ with the pictures of all splits, and a COCO file for each split."""
    truth = annotation_samples.write_coco(root, 9, SIZE)
    for file in (root / "images/default").iterdir():
        file.rename(root / "images" / file.name)
    (root / "images/default").rmdir()
    whole = root / "annotations/instances_default.json"
    told = json.loads(whole.read_text())
    whole.unlink()
    for split, numbers in {"train": range(1, 6), "val": (6, 7), "test": (8, 9)}.items():
        images = [image for image in told["images"] if image["id"] in numbers]
        objects = [one for one in told["annotations"] if one["image_id"] in numbers]
        part = {**told, "images": images, "annotations": objects}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(part))
        (root / f"annotations/captions_{split}.json").write_text(json.dumps({**part, "annotations": []}))
    return {"seg": {f"{split_at(k)}/{name}": ids for k, (name, ids) in enumerate(truth.items())}}


def split_at(place: int) -> str:
    """The split of a picture of :func:`coco_files_of_splits`."""
    return "train" if place < 5 else "val" if place < 7 else "test"


def suffixes(root: Path) -> Truth:
    """One folder, every file a PNG: a.png, a_mask.png, a_depth.png."""
    seg, depth = {}, {}
    for number, name in enumerate(NAMES):
        seg[name] = ids(number)
        photo(root / f"{name}.png", number)
        put(root / f"{name}_mask.png", seg[name])
        depth[name] = put(root / f"{name}_depth.png", depth_mm(number)) / 1000
    return {"seg": seg, "depth": depth}


def satellite(root: Path) -> Truth:
    """One folder, 1_sat.jpg and 1_mask.png in colours."""
    truth = {}
    for number in range(8):
        truth[str(number)] = photo(root / f"{number}_sat.jpg", number)
        put(root / f"{number}_mask.png", COLOURS[ids(number)])
    return {"seg": truth}


def pascal(root: Path) -> Truth:
    """JPEGImages, SegmentationClass with a palette and outlines of 255, lists of names, class_names.txt."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:4], palette[255] = COLOURS, (224, 224, 192)
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = photo(root / f"JPEGImages/{name}.jpg", number)
        truth[name][edges(number)] = 255
        put(root / f"SegmentationClass/{name}.png", truth[name], palette)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(NAMES[:6]) + "\n")
    (lists / "val.txt").write_text("\n".join(NAMES[6:]) + "\n")
    (root / "class_names.txt").write_text("background\nroad\ncar\ntree\n")
    return {"seg": truth}


def defects(root: Path) -> Truth:
    """MVTec: train/good without labels, test/DEFECT with ground_truth/DEFECT/NAME_mask.png."""
    truth = {}
    for number in range(4):
        photo(root / f"train/good/{number:03d}.png", number)
        photo(root / f"test/good/{number:03d}.png", number + 4)
    for number, (kind, name) in enumerate([(k, n) for k in ("hole", "cut", "spot") for n in range(3)]):
        truth[f"{kind}/{name:03d}"] = (photo(root / f"test/{kind}/{name:03d}.png", number) == 2).astype(np.uint8)
        put(root / f"ground_truth/{kind}/{name:03d}_mask.png", truth[f"{kind}/{name:03d}"] * 255)
    return {"seg": truth}


def cities(root: Path) -> Truth:
    """Nested folders of cities, the same name in two of them, words at the end of names."""
    truth = {}
    for number, (split, city) in enumerate([(s, c) for s in ("train", "val") for c in ("aachen", "ulm", "bonn")]):
        for frame in range(2):
            name = f"{city}/frame_{frame}"
            truth[f"{split}/{name}"] = photo(root / f"images/{split}/{name}_rgb.png", 2 * number + frame)
            put(root / f"gt/{split}/{name}_gt_labelIds.png", truth[f"{split}/{name}"])
            put(root / f"gt/{split}/{name}_gt_color.png", COLOURS[truth[f"{split}/{name}"]])
            put(root / f"gt/{split}/{name}_gt_instanceIds.png", truth[f"{split}/{name}"].astype(np.uint16) * 1000)
    return {"seg": truth}


def split_words(root: Path) -> Truth:
    """train + trainannot, val + valannot, as CamVid has it."""
    truth = {}
    for number, name in enumerate(NAMES):
        split = "val" if number > 5 else "train"
        truth[name] = photo(root / f"{split}/{name}.png", number)
        put(root / f"{split}annot/{name}.png", truth[name])
    return {"seg": truth}


def carvana(root: Path) -> Truth:
    """train + train_masks with _mask in names."""
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = (photo(root / f"train/{name}.jpg", number) == 2).astype(np.uint8)
        put(root / f"train_masks/{name}_mask.png", truth[name] * 255)
    return {"seg": truth}


def rooms(root: Path) -> Truth:
    """Five tasks: rgb, semantic, depth, normals (y up, z backward), edges (black on white), and numbers of objects."""
    truth: Truth = {"seg": {}, "depth": {}, "normals": {}, "edges": {}}
    for number, name in enumerate(NAMES):
        place = f"{'val' if number > 5 else 'train'}/{name}"
        truth["seg"][name] = photo(root / f"rgb/{place}.jpg", number)
        put(root / f"semantic/{place}.png", truth["seg"][name])
        truth["depth"][name] = put(root / f"depth/{place}.png", depth_mm(number)) / 1000
        truth["normals"][name] = normals(number)
        stored = normals(number) * np.array([1, -1, -1])[:, None, None]
        put(root / f"normals/{place}.png", np.rint((np.moveaxis(stored, 0, -1) + 1) * 127.5).astype(np.uint8))
        truth["edges"][name] = edges(number)
        put(root / f"edges/{place}.png", np.where(edges(number), 0, 255).astype(np.uint8))
        put(root / f"instance/{place}.png", (ids(number) * 17).astype(np.uint8))
    return truth


def arrays(root: Path) -> Truth:
    """Float depth in metres with NaN and float normals, as .npy; disparity of 16 bits is left for another layout."""
    truth: Truth = {"depth": {}, "normals": {}}
    for number, name in enumerate(NAMES):
        photo(root / f"images/{name}.jpg", number)
        metres = (depth_mm(number) / 1000).astype(np.float32)
        truth["depth"][name] = metres
        put(root / f"depth/{name}.npy", np.where(metres == 0, np.nan, metres).astype(np.float32))
        truth["normals"][name] = normals(number)
        put(root / f"normal/{name}.npy", np.moveaxis(normals(number), 0, -1).astype(np.float32))
    return truth


def disparity(root: Path) -> Truth:
    """disparity of 16 bits, 0 where there is none."""
    truth = {}
    for number, name in enumerate(NAMES):
        photo(root / f"image/{name}.jpg", number)
        values = put(root / f"disparity/{name}.png", depth_mm(number) * np.uint16(4))
        truth[name] = np.where(values == 0, np.nan, values)
    return {"depth": truth}


def from_one(root: Path) -> Truth:
    """Ids 1 to 4, 0 never."""
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = photo(root / f"img/{name}.jpg", number)
        put(root / f"label/{name}.png", truth[name] + np.uint8(1))
    return {"seg": truth}


def gaps(root: Path) -> Truth:
    """Ids 0, 40, 80, 120."""
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = photo(root / f"images/{name}.jpg", number)
        put(root / f"masks/{name}.png", truth[name] * np.uint8(40))
    return {"seg": truth}


def cracks(root: Path) -> Truth:
    """0, 1 and 255 for "no label"."""
    truth = {}
    for number, name in enumerate(NAMES):
        truth[name] = (photo(root / f"images/{name}.jpg", number) == 2).astype(np.uint8)
        truth[name][-3:] = 255
        put(root / f"labels/{name}.png", truth[name])
    return {"seg": truth}


def unnamed(root: Path) -> Truth:
    """Folders whose names say nothing: a with photographs, b with a palette, c with normals."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:4] = COLOURS
    truth: Truth = {"seg": {}, "normals": {}}
    for number, name in enumerate(NAMES):
        truth["seg"][name] = photo(root / f"a/{name}.jpg", number)
        put(root / f"b/{name}.png", truth["seg"][name], palette)
        truth["normals"][name] = normals(number)
        stored = np.rint((np.moveaxis(normals(number), 0, -1) + 1) * 127.5).astype(np.uint8)
        put(root / f"c/{name}.png", stored)
    return truth


def saliency(root: Path) -> Truth:
    """Soft grey levels of one object, JPEG allowed."""
    truth = {}
    for number, name in enumerate(NAMES):
        front = photo(root / f"images/{name}.jpg", number) == 1
        soft = front.astype(float)
        for _ in range(2):
            soft = (soft + np.roll(soft, 1, 0) + np.roll(soft, 1, 1)) / 3
        values = put(root / f"saliency/{name}.png", np.rint(soft * 255).astype(np.uint8))
        truth[name] = values > 127
    return {"saliency": truth}


def coco(root: Path) -> Truth:
    """COCO: train2017, val2017, annotations/instances_SPLIT.json, and captions that are no labels."""
    truth = {}
    for split, first in (("train2017", 0), ("val2017", 6)):
        images, objects = [], []
        for number in range(first, first + (6 if first == 0 else 2)):
            name = f"{number:012d}"
            truth[name] = photo(root / f"{split}/{name}.jpg", number)
            images.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
            for label, outline in enumerate(annotation_samples.outlines(number, SIZE), 1):
                one = {"id": len(objects) + 1, "image_id": number, "category_id": 10 * label, "iscrowd": 0}
                area = float(annotation_samples.area(outline))
                objects.append(one | {"area": area, "segmentation": [outline.ravel().tolist()], "bbox": [0, 0, 9, 9]})
        kinds = [{"id": 10 * k, "name": name} for k, name in enumerate(annotation_samples.CLASSES, 1)]
        told = {"images": images, "annotations": objects, "categories": kinds}
        folder = root / "annotations"
        folder.mkdir(exist_ok=True)
        (folder / f"instances_{split}.json").write_text(json.dumps(told))
        captions = {"images": images, "annotations": [{"id": 1, "image_id": first, "caption": "a road"}]}
        (folder / f"captions_{split}.json").write_text(json.dumps(captions))
    return {"seg": truth}


def hugging_face(root: Path) -> Truth:
    """imagefolder: metadata.csv in each split, file_name and mask_file_name."""
    truth = {}
    for split in ("train", "validation"):
        rows = ["file_name,mask_file_name,note"]
        for number, name in enumerate(NAMES):
            key = f"{split}_{number}"
            truth[f"{split[0]}{name}"] = photo(root / split / f"{split[0]}{name}.jpg", number + (split != "train"))
            put(root / split / "m" / f"{key}.png", truth[f"{split[0]}{name}"])
            rows.append(f"{split[0]}{name}.jpg,m/{key}.png,fine")
        (root / split / "metadata.csv").write_text("\n".join(rows) + "\n")
    return {"seg": truth}


#: Layout → what its classes are called, in the order of the ids of its truth; None: not a map of classes.
LAYOUTS = {
    split_folders: None,
    coco_files_of_splits: ["background", *annotation_samples.CLASSES],
    folders_in_splits: ["background", "804080", "dc143c", "14a01e"],
    flat_binary: ["background", "foreground"],
    suffixes: None,
    satellite: ["background", "804080", "dc143c", "14a01e"],
    pascal: ["background", "road", "car", "tree"],
    defects: ["background", "foreground"],
    cities: None,
    split_words: None,
    carvana: ["background", "foreground"],
    rooms: None,
    arrays: None,
    disparity: None,
    from_one: None,
    gaps: ["id 0", "id 40", "id 80", "id 120"],
    cracks: None,
    unnamed: None,
    saliency: None,
    coco: ["background", "road", "car", "tree"],
    hugging_face: None,
}
