"""What a runtime without torch uses, run where torch cannot be imported: files, drawing, decodings, descriptions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import garnish

SRC = Path(garnish.__file__).parent
#: what the rooms may not lean on, and what stands for it here: an import of it fails
BLOCKED = ("torch", "torchvision", "torchmetrics", "timm", "lightning", "safetensors", "matplotlib", "scipy", "jinja2")
HEAD = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_block_holds():
    done = subprocess.run([sys.executable, "-c", HEAD + "import garnish.tasks.depth"], capture_output=True, check=False)
    assert done.returncode == 1


def test_every_file_of_these_rooms_is_imported():
    names = [
        f"garnish.{room}.{file.stem}"
        for room in ("drawing", "files", "decodings", "pictures", "predicting", "runtime", "tiles")
        for file in sorted((SRC / room).glob("*.py"))
        if file.stem not in ("__init__", "__main__")
    ]
    assert len(names) > 8
    run(
        f"import importlib\nfor name in {[*names, 'garnish.bundles.bundle_json']!r}:\n    importlib.import_module(name)"
    )


PICTURES = """
from pathlib import Path
import numpy as np
from PIL import Image
from garnish.drawing.colours import class_colours
from garnish.drawing.map_files import write_png
from garnish.drawing.painting import paint_classes, paint_distances, paint_shares, paint_vectors
from garnish.drawing.sheet import draw_sheet
from garnish.files.label_files import read_array

ids = np.array([[0, 1], [2, 255]], np.uint8)
colours = class_colours(("background", "road", "car"))
painted = paint_classes(ids, colours)
assert [tuple(p) for p in painted.reshape(-1, 3)] == [*colours, (0, 0, 0)]
odd = paint_classes(np.array([[256, -1, 70000]]), colours)  # no remainder of theirs is a class
assert not odd.any()
assert not paint_classes(ids, []).any()
metres = np.array([[0, 0.001], [10, 11]], np.float32)
far = paint_distances(metres, 0.001, 10.0)
assert far.tolist() == [[[0, 0, 0], [253, 231, 36]], [[68, 1, 84], [0, 0, 0]]]
up = np.zeros((3, 1, 2), np.float32)
up[1, 0, 0] = -1
assert paint_vectors(up).tolist() == [[[128, 0, 128], [0, 0, 0]]]
grey = paint_shares(np.array([[0.5, 255]], np.float32), none=255, none_colour=(1, 2, 3), dark=True)
assert grey.tolist() == [[[128, 128, 128], [1, 2, 3]]]
folder = Path(sys.argv[1])
draw_sheet([[("picture", painted), ("depth", far)]], folder / "sheet.png", legend={"road": colours[1]})
assert Image.open(folder / "sheet.png").width > 500
assert (read_array(write_png(ids, folder / "ids.png")) == ids).all()
"""


def test_maps_are_painted_and_written(tmp_path):
    run(f"sys.argv[1:] = [{str(tmp_path)!r}]\n{PICTURES}")
    assert {file.name for file in tmp_path.iterdir()} == {"sheet.png", "ids.png"}
