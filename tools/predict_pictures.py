"""The pictures of docs/predict.md: what ``garnish predict`` writes of a procedural scene.

garnish demo --out demo
python tools/predict_pictures.py --bundle demo/bundles/lora
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import garnish as gn
from garnish.cli import main as garnish_main
from garnish.data.scenes.scenes import Scenes
from garnish.drawing.outlines import regions

OUT = Path(__file__).parents[1] / "docs" / "images"
#: series and number of the scene, and the side that it is enlarged to
SCENE, SIDE = (7, 3), 256


def outlined(picture: np.ndarray, ids: np.ndarray, names: tuple[str, ...]) -> Image.Image:
    """The rings of COCO's file, drawn over the picture at twice its size."""
    image = Image.fromarray(picture).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for region in regions(ids, len(names)):
        for ring in (region.outer, *region.holes):
            points = [tuple(2 * x for x in point) for point in ring.tolist()]
            draw.line([*points, points[0]], fill=(255, 255, 255), width=2)
    return image


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--bundle", required=True)
    given = words.parse_args()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene = Scenes(SCENE[1] + 1, seed=SCENE[0])[SCENE[1]].image.numpy().transpose(1, 2, 0)
        file = folder / "scene.png"
        Image.fromarray(scene).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file)
        code = garnish_main(["predict", given.bundle, str(file), "--out", str(folder / "maps"), "--overlay"])
        assert code == 0, code
        # no palette: one of 192 colours turns the bar of depth into a few steps, and classes into others' colours
        Image.open(folder / "maps" / "scene_sheet.png").save(OUT / "predict_sheet.png", optimize=True)
        ids = np.asarray(Image.open(folder / "maps" / "scene_seg.png"))
        names = gn.load(given.bundle).tasks["seg"].label_names
        overlays = [Image.open(folder / "maps" / f"scene_{task}_overlay.png") for task in ("seg", "depth", "edges")]
        cells = [*overlays, outlined(np.asarray(Image.open(file)), ids, names).resize((SIDE, SIDE))]
        strip = Image.new("RGB", (len(cells) * (SIDE + 8) - 8, SIDE), (255, 255, 255))
        for number, cell in enumerate(cells):
            strip.paste(cell, (number * (SIDE + 8), 0))
        strip = strip.resize((960, SIDE * 960 // strip.width), Image.Resampling.LANCZOS)
        strip.save(OUT / "predict_overlays.png", optimize=True)


if __name__ == "__main__":
    main()
