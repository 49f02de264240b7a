"""Random composition of a procedural scene within a style: camera, room, solids, paints and light.

World frame: metres, the camera's centre at the origin, x right, y down, z forward and horizontal. Shape letters:
N rays or points; vectors are (3, N) float32.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from garnish.data.scenes.rooms import BoxRoom, Room, Studio
from garnish.data.scenes.shapes import SHAPES
from garnish.data.scenes.solids import Floats, Solid
from garnish.data.scenes.textures import Paint

#: a solid's z axis pointing up (world y is down)
_UPRIGHT = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)


@dataclass(frozen=True)
class Style:
    """Parameters of one style of scenes.

    Attributes:
        background: semantic classes of the room, in id order.
        shapes: semantic classes of the solids, in id order, after those of the room.
        textures: textures of the solids.
        ground: textures of the floor; those of the walls are ``walls``.
        themes: palettes of hex colours, the first two for the room; empty: any hue.
        round_room: a round studio of two surfaces instead of a room with corners and a ceiling.
        low_sun: a low warm sun with cool ambient light, instead of a near-white lamp above.
    """

    background: tuple[str, ...]
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    ground: tuple[str, ...]
    walls: tuple[str, ...]
    themes: tuple[tuple[str, ...], ...]
    round_room: bool
    low_sun: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """Semantic class names by id."""
        return self.background + self.shapes


#: style name → style. The two share no shape and no texture; palettes, rooms and light differ too.
STYLES: dict[str, Style] = {
    "pretrain": Style(
        background=("floor", "wall", "ceiling"),
        shapes=("sphere", "box", "cylinder", "cone", "wedge"),
        textures=("even", "checker", "stripes", "noise", "gradient"),
        ground=("planks", "checker", "noise", "even"),
        walls=("even", "even", "stripes", "noise", "gradient"),
        themes=(),
        round_room=False,
        low_sun=False,
    ),
    "demo": Style(
        background=("ground", "backdrop"),
        shapes=("torus", "capsule", "pyramid", "prism", "dome"),
        textures=("dots", "marble", "rings", "zigzag", "patches"),
        ground=("bricks", "marble", "patches", "dots"),
        walls=("marble", "bricks", "patches"),
        themes=(
            ("E9D8A6", "94D2BD", "CA6702", "0A9396", "9B2226", "EE9B00", "005F73"),
            ("F4E1D2", "B8A9C9", "D64161", "FF7B25", "622569", "FEB236", "5B9AA0"),
            ("D9E2DC", "E8CFB0", "2A9D8F", "E76F51", "F4A261", "264653", "E9C46A"),
            ("EFD9CE", "9FB8AD", "B5446E", "525B76", "F4B942", "6B9AC4", "97D8C4"),
            ("CFC7B8", "7C9EB2", "F2545B", "19323C", "F3C677", "8C5383", "A4BEF3"),
        ),
        round_room=True,
        low_sun=True,
    ),
}


@dataclass(frozen=True, eq=False)
class Placed:
    """A solid in the world: ``centre`` (3,), ``turn`` (3, 3) from its frame to the world's; class name; paint."""

    solid: Solid
    kind: str
    centre: Floats
    turn: Floats
    paint: Paint


@dataclass(frozen=True, eq=False)
class Arrangement:
    """A complete scene, ready to be rendered.

    Attributes:
        camera: (3, 3) rotation from the camera's frame (x right, y down, z forwards) to the world's.
        focal: focal length in picture widths.
        lamp: (3,) position of the light in metres; far away for a sun.
        lamp_size: its radius in metres (softness of shadows).
        lamp_colour, sky, bounce: (3,) linear RGB: of the light, of the ambient light from above and from below.
        blur, noise: of the sensor: weight of each neighbour, standard deviation in [0, 1] units.
    """

    camera: Floats
    focal: float
    room: Room
    solids: tuple[Placed, ...]
    lamp: Floats
    lamp_size: float
    lamp_colour: Floats
    sky: Floats
    bounce: Floats
    blur: float
    noise: float


def arrange(rng: np.random.Generator, style: Style) -> Arrangement:
    """Sample a scene; a pure function of the generator's state and the style."""
    uniform = rng.uniform
    pitch, roll = math.radians(uniform(8, 26)), math.radians(rng.normal(0, 2.5))
    floor = uniform(1.15, 1.75)
    focal = uniform(0.85, 1.15)
    theme = style.themes[int(rng.integers(len(style.themes)))] if style.themes else ()
    room = _room(rng, style, floor, theme)
    solids = _solids(rng, style, (floor, pitch, focal), room, theme)
    if style.low_sun:
        turn, height = uniform(-2.4, 2.4), math.radians(uniform(28, 55))
        level = math.cos(height)
        lamp = 40 * np.array([math.sin(turn) * level, -math.sin(height), -math.cos(turn) * level])
        lamp_size, lamp_colour = uniform(0.4, 2.5), np.array([1.18, 0.92, 0.66]) * uniform(0.75, 0.95)
        sky, bounce = np.array([0.28, 0.33, 0.46]) * uniform(0.8, 1.1), np.array([0.26, 0.19, 0.17])
    else:
        lamp = np.array([uniform(-2.5, 2.5), floor - uniform(2.4, 2.8), uniform(0.2, 4.0)])
        while not room.holds(lamp, 0.3):
            lamp[[0, 2]] *= 0.8
        warm = rng.normal(0, 0.04)
        lamp_size, lamp_colour = uniform(0.05, 0.35), np.array([1 + warm, 1, 1 - warm]) * uniform(0.8, 1.1)
        sky, bounce = np.array([0.34, 0.35, 0.36]) * uniform(0.7, 1.15), np.array([0.2, 0.19, 0.18])
    return Arrangement(
        camera=_turn(2, roll, _turn(0, -pitch)),
        focal=focal,
        room=room,
        solids=solids,
        lamp=lamp.astype(np.float32),
        lamp_size=lamp_size,
        lamp_colour=lamp_colour.astype(np.float32),
        sky=sky.astype(np.float32),
        bounce=bounce.astype(np.float32),
        blur=uniform(0.04, 0.12),
        noise=uniform(0.004, 0.016),
    )


def _turn(axis: int, angle: float, first: Floats | None = None) -> Floats:
    """Rotation about a world axis, after ``first``."""
    c, s = math.cos(angle), math.sin(angle)
    out = np.eye(3, dtype=np.float32)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[i, i] = out[j, j] = c
    out[i, j], out[j, i] = -s, s
    return out if first is None else (first @ out).astype(np.float32)


def _room(rng: np.random.Generator, style: Style, floor: float, theme: tuple[str, ...]) -> Room:
    uniform = rng.uniform
    ground = _paint(rng, style.ground, uniform(0.35, 0.7), theme[:2], room=True)
    wall = _paint(rng, style.walls, uniform(0.4, 0.9), theme[1:2] + theme[:1], room=True)
    if style.round_room:
        ahead = uniform(4.6, 6.6)
        radius = uniform(0.55, 0.85) * ahead
        return Studio(floor, (uniform(-0.6, 0.6), ahead - radius), radius, (ground, wall))
    ceiling = _paint(rng, ("even",), 1.0, (), room=True)
    yaw = uniform(-0.8, 0.8)
    low = np.array([-uniform(2.2, 3.6), floor - uniform(2.5, 3.1), -2.0])
    high = np.array([uniform(2.2, 3.6), floor, uniform(3.8, 5.4)])
    return BoxRoom(low.astype(np.float32), high.astype(np.float32), yaw, (ground, wall, ceiling))


def _solids(
    rng: np.random.Generator, style: Style, view: tuple[float, float, float], room: Room, theme: tuple[str, ...]
) -> tuple[Placed, ...]:
    """Solids on the visible floor that do not touch each other: four to nine if there is room for them."""
    uniform = rng.uniform
    floor, pitch, focal = view
    placed: list[Placed] = []
    wanted = int(rng.integers(4, 10))
    for _ in range(120):
        if len(placed) == wanted:
            break
        kind = style.shapes[int(rng.integers(len(style.shapes)))]
        size = uniform(0.24, 0.66)
        ahead = uniform(1.6, 4.3)
        aside = uniform(-0.46, 0.46) * ahead / focal
        # ground this far below the line of sight is outside the picture's lower border
        if math.tan(math.atan2(floor - 0.6 * size, ahead) - pitch) > 0.45 / focal:
            continue
        here = np.array([aside, floor - size, ahead], np.float32)
        if not room.holds(here, size):
            continue
        solid = SHAPES[kind](size, uniform(), uniform())
        pose = uniform()
        turn = _UPRIGHT
        if pose > 0.8:
            turn = _any_turn(rng)
        elif pose > 0.55 and kind not in ("cone", "pyramid", "dome", "wedge"):
            turn = _turn(0, math.pi / 2) @ turn
        turn = (_turn(1, uniform(-math.pi, math.pi)) @ turn).astype(np.float32)
        lowest = float((turn @ solid.hull)[1].max()) + solid.rounding
        centre = np.array([aside, floor - lowest, ahead], np.float32)
        if any(
            math.hypot(*(centre - p.centre)[[0, 2]].tolist()) < 0.85 * (solid.reach + p.solid.reach) for p in placed
        ):
            continue
        if not room.holds(centre, solid.reach):
            continue
        paint = _paint(rng, style.textures, solid.reach * uniform(0.3, 0.7), theme[2:], room=False)
        placed.append(Placed(solid, kind, centre, turn, paint))
    return tuple(placed)


def _any_turn(rng: np.random.Generator) -> Floats:
    """A uniformly random rotation, from a random unit quaternion."""
    q = rng.normal(size=4)
    w, x, y, z = (q / np.linalg.norm(q)).tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        np.float32,
    )


def _paint(
    rng: np.random.Generator, textures: tuple[str, ...], feature: float, theme: tuple[str, ...], *, room: bool
) -> Paint:
    """A random paint: two colours of the theme if there is one, else of any hue (pale in the room, vivid on solids)."""
    uniform = rng.uniform
    if theme:
        picks = [0, 1 % len(theme)] if room else rng.permutation(len(theme))[:2].tolist()
        first, second = (np.array([int(theme[k][i : i + 2], 16) / 255 for i in (0, 2, 4)]) for k in picks)
        if room:
            second = first * 0.78 + 0.22 * second
        first, second = first + rng.normal(0, 0.03, 3), second + rng.normal(0, 0.03, 3)
    else:
        hue = uniform()
        strong = (uniform(0.02, 0.35), uniform(0.6, 0.92)) if room else (uniform(0.45, 0.95), uniform(0.55, 0.98))
        first = np.array(colorsys.hsv_to_rgb(hue, *strong))
        if room or uniform() < 0.5:
            second = first * uniform(0.55, 0.8)
        else:
            second = np.array(colorsys.hsv_to_rgb((hue + uniform(0.3, 0.7)) % 1, uniform(0.05, 0.9), uniform(0.5, 1)))
    # display colours are the square root of linear light throughout (see render.py)
    first, second = (np.clip(c, 0.02, 0.98).astype(np.float32) ** 2 for c in (first, second))
    gloss = 0.0 if room else (uniform(0.15, 0.8) if uniform() < 0.6 else 0.0)
    texture = textures[int(rng.integers(len(textures)))]
    return Paint(texture, feature, rng.random(3, dtype=np.float32), first, second, gloss)
