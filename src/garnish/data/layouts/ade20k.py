"""Layout of ADE20K as published by the SceneParsing benchmark (MIT, 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from garnish.checking.plain_data import Json
from garnish.data.layouts.layout import Layout

#: Classes 1 to 150 of the label files; ids 0 to 149.
_CLASSES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""


@final
@dataclass(frozen=True, kw_only=True)
class ADE20K(Layout):
    """ADE20K (SceneParsing): ``seg``, 150 classes; id 0 of the files ("other") has no label, 1 to 150 become 0 to 149.

    ``images/{training,validation}/NAME.jpg``, ``annotations/{training,validation}/NAME.png``.
    """

    folder: ClassVar[str] = "ADEChallengeData2016"
    origin: ClassVar[str] = "ADEChallengeData2016.zip, sceneparsing.csail.mit.edu"
    marks: ClassVar[tuple[str, ...]] = ("images/training", "annotations/training", "objectInfo150.txt")

    def described(self, root: Path) -> dict[str, Json]:
        """Description of ADE20K: one task, ``seg``."""
        classes = [name.strip() for name in _CLASSES.replace("\n", " ").split(",")]
        return {
            "images": "images/{split}/{name}.jpg",
            "splits": {"train": "training", "val": "validation"},
            "tasks": {
                "seg": {
                    "task": "Semantic",
                    "labels": "annotations/{split}/{name}.png",
                    "classes": classes,
                    "offset": -1,
                }
            },
        }
