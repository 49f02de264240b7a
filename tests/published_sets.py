"""Small trees in the layouts of published sets, as their papers and first readers describe them.

Shape letters: H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

H, W = 24, 32
VOID = 255
IDS = {"train": ["a_01", "a_02"], "val": ["b_01", "b_02"]}


def put(path: Path, values, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        savemat(path, values, do_compression=True)
    elif palette:
        image = Image.fromarray(np.asarray(values, np.uint8), "L").convert("P")
        image.putdata(np.asarray(values, np.uint8).reshape(-1).tolist())
        image.putpalette([k * 37 % 256 for k in range(768)])
        image.save(path)
    else:
        Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def lists(root: Path, where: str, **splits) -> None:
    (root / where).mkdir(parents=True, exist_ok=True)
    for split, names in (splits or IDS).items():
        (root / where / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


def picture(path: Path) -> Path:
    seed = int.from_bytes(path.stem.encode(), "big")
    return put(path, np.random.default_rng(seed).integers(0, 255, (H, W, 3)))


def halves(left, right, dtype=np.uint8) -> np.ndarray:
    """(H, W) with one value in the left half and another in the right one."""
    out = np.full((H, W), left, dtype)
    out[:, W // 2 :] = right
    return out


def voc(root: Path) -> Path:
    for name in [*IDS["train"], *IDS["val"], "c_01"]:
        picture(root / f"JPEGImages/{name}.jpg")
    for name in [*IDS["train"], *IDS["val"]]:
        ids = halves(0, 15)
        ids[:, W // 2 - 1] = VOID
        ids[0, :3] = (20, 7, 1)
        put(root / f"SegmentationClass/{name}.png", ids, palette=True)
    put(root / "SegmentationClassAug/c_01.png", halves(3, 4))
    lists(root, "ImageSets/Segmentation", **IDS, trainaug=[*IDS["train"], "c_01"])
    return root


def ade(root: Path) -> Path:
    for split, names in (("training", IDS["train"]), ("validation", IDS["val"])):
        for name in names:
            picture(root / f"images/{split}/{name}.jpg")
            ids = halves(0, 150)
            ids[0, :2] = (1, 13)
            put(root / f"annotations/{split}/{name}.png", ids)
    (root / "objectInfo150.txt").write_text("Idx Ratio Train Val Stuff Name\n")
    return root


def cityscapes(root: Path) -> Path:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        for name in IDS[split]:
            stem = f"{split}/{city}/{city}_{name}"
            picture(root / f"leftImg8bit/{stem}_leftImg8bit.png")
            ids = np.arange(H * W).reshape(H, W) % 34
            put(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)
            put(root / f"gtFine/{stem}_gtFine_labelTrainIds.png", np.where(ids % 20 == 19, VOID, ids % 20))
            put(root / f"gtFine/{stem}_gtFine_instanceIds.png", ids)
            put(root / f"gtFine/{stem}_gtFine_color.png", np.zeros((H, W, 4)))
    return root


def nyud(root: Path, variant: str) -> Path:
    names = [*IDS["train"], *IDS["val"]]
    normals = np.zeros((H, W, 3), np.float32)
    normals[:, : W // 2] = (0.6, 0.0, -0.8)
    edge = np.zeros((H, W), np.float32)
    edge[:, W // 2] = 1
    depth = halves(2.5, 255, np.float32)
    depth[0, 0] = 7.25
    ids = halves(0, 40)
    ids[0, :2] = (1, 6)
    for name in names:
        picture(root / f"images/{name}.{'jpg' if variant == 'A' else 'png'}")
        put(root / f"segmentation/{name}.png", ids)
        put(root / f"depth/{name}.npy", depth)
        if variant == "A":
            put(root / f"normals/{name}.npy", normals)
            put(root / f"edge/{name}.npy", edge)
        else:
            rgb = np.where((normals == 0).all(-1, keepdims=True), 0, np.rint((normals + 1) * 127.5))
            put(root / f"normals/{name}.png", rgb)
            put(root / f"edge/{name}.png", edge * 255)
    if variant == "B":
        put(root / "centroids.npy", np.zeros((40, 3)))
    lists(root, "gt_sets")
    return root


def thing(class_ind: int, mask, parts) -> dict:
    """One object of a Pascal-Part annotation; ``parts``: (name, mask)."""
    told = np.zeros((1, len(parts)), [("part_name", object), ("mask", object)])
    for number, (name, part) in enumerate(parts):
        told[0, number] = (name, part.astype(np.uint8))
    held = told if parts else np.zeros((0, 0))
    return {
        "class": "person",
        "class_ind": np.float64(class_ind),
        "mask": np.asarray(mask, np.uint8),
        "parts": held,
    }


def anno(things: list[dict]) -> dict:
    objects = np.zeros((1, len(things)), [(k, object) for k in ("class", "class_ind", "mask", "parts")])
    for number, one in enumerate(things):
        objects[0, number] = tuple(one.values())
    return {"anno": {"imname": "x", "objects": objects if things else np.zeros((0, 0))}}


def box(top: int, left: int) -> np.ndarray:
    out = np.zeros((H, W), bool)
    out[top : top + 4, left : left + 4] = True
    return out


#: Pascal-Part's names, and the group each belongs to: head, torso, upper arms, lower arms, upper legs, lower legs
PARTS = {
    **dict.fromkeys(("head", "hair", "leye", "rear", "mouth", "lebrow"), 1),
    **dict.fromkeys(("torso", "neck"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("rlleg", "lfoot"), 6),
}
PLACES = {name: (4 * (k // 7), 4 * (k % 7)) for k, name in enumerate(PARTS)}


def pascal(root: Path) -> Path:
    names = [*IDS["train"], *IDS["val"]]
    everything = np.ones((H, W))
    # 284 person and 440 wall are known indoors; 360 sky and 187 grass are not
    context = np.full((H, W), 440, np.uint16)
    context[:, W // 2 :] = 360
    context[H // 2 :, W // 2 :] = 284
    for number, name in enumerate(names):
        picture(root / f"JPEGImages/{name}.jpg")
        where = "VOC12" if number % 2 == 0 else "pascal-context"
        put(root / f"semseg/{where}/{name}.png", halves(0, 15 if number % 2 == 0 else 8))
        put(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": context})
        put(root / f"sal_distill/{name}.png", halves(127, 128))
        rgb = np.zeros((H, W, 3), np.uint8)
        rgb[...] = (255, 128, 128)
        rgb[-1] = (127, 128, 127)  # no direction at all
        put(root / f"normals_distill/{name}.png", rgb)
        person = thing(15, everything, [(n, box(*PLACES[n])) for n in PARTS])
        dog = thing(12, everything, [("tail", ~box(0, 0))])
        bare = thing(15, everything, [])
        put(root / f"human_parts/{name}.mat", anno([dog, person] if number % 2 == 0 else [dog, bare]))
    # the other labels win where both lie there
    put(root / f"semseg/pascal-context/{names[0]}.png", halves(9, 9))
    lists(root, "ImageSets/Context")
    lists(root, "ImageSets/Parts")
    return root


BUILDERS = {
    "PascalVOC": voc,
    "ADE20K": ade,
    "Cityscapes": cityscapes,
    "NYUDMultiTask": lambda root: nyud(root, "A"),
    "PascalContextMultiTask": pascal,
}
#: name in the archive, the tasks, and a label that may not be missing
FACTS = {
    "PascalVOC": ("VOCdevkit/VOC2012", {"seg": 21}, "SegmentationClass/a_02.png"),
    "ADE20K": ("ADEChallengeData2016", {"seg": 150}, "annotations/training/a_02.png"),
    "Cityscapes": ("cityscapes", {"seg": 19}, "gtFine/train/aachen/aachen_a_02_gtFine_labelIds.png"),
    "NYUDMultiTask": ("NYUD_MT", {"seg": 40, "depth": 1, "normals": 3, "edges": 1}, "normals/a_02.npy"),
    "PascalContextMultiTask": (
        "PASCAL_MT",
        {"seg": 21, "parts": 7, "saliency": 1, "normals": 3, "edges": 1},
        "human_parts/a_02.mat",
    ),
}
