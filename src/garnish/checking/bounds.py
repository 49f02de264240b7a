"""Bounds that options share: far beyond what anybody uses, and within what a machine holds and a loop ends.

Where one option decides the size of a layer, its largest value keeps the layer below some gigabytes on the widest
trunks (6,144 channels), with the other options as they are by default. Numbers that only count (steps, pictures) stay
where floats count exactly.
"""

from __future__ import annotations

from typing import Annotated

from garnish.checking.plain_data import Within, integers, lengths, reals

#: Ranks and bottlenecks, in which a layer grows linearly: 1.6 GB beside 6,144 channels.
Narrow = Annotated[int, integers(1, 65_536)]

#: Widths in whose square a layer grows: a 3×3 convolution has 0.6 GB.
Channels = Annotated[int, integers(1, 4_096)]

#: Widths of decoders, one for each feature map.
Widths = Annotated[tuple[Channels, ...], lengths(1, 64)]

#: ρ of a bottleneck d/ρ, which is at most ten times as wide as the trunk.
Reduction = Annotated[float, reals(0.1, 65_536)]

#: Factors of updates; what they must not be is for ``check_factor``.
Factor = Annotated[float, reals(-1e6, 1e6)]

#: Probability that a value is dropped.
Dropout = Annotated[float, reals(0, 1, below=True)]

#: A probability, or a share.
Share = Annotated[float, reals(0, 1)]

#: Weight of a loss or of a part of it; the square of what it weighs stays within float32.
Weight = Annotated[float, reals(0, 1e9)]

#: Learning rates, and limits on gradients: within float32, so that what is too large diverges in the first steps.
Rate = Annotated[float, reals(0, 1e30, above=True)]

#: Names of layers or of places.
Names = Annotated[tuple[str, ...], lengths(0, 4_096)]

#: Distances in metres, from a nanometre to a million kilometres.
Metres = Annotated[float, reals(1e-9, 1e9)]

#: Distances between pixels; time and memory of a comparison grow with them.
Pixels = Annotated[int, integers(0, 256)]

#: Sides of a picture, in pixels.
Side = Annotated[int, integers(1, 65_536)]

#: Most pixels of a picture: 0.8 GB of 8-bit RGB, 3.2 GB of floats.
MOST_PIXELS = 2**28

#: Height and width of pictures.
Size = Annotated[
    tuple[Side, Side],
    Within(
        f"height and width, each from 1 to 65,536 and together at most {MOST_PIXELS:,} pixels",
        lambda size: size[0] * size[1] <= MOST_PIXELS,
    ),
]

#: Seeds: what torch takes; NumPy takes any from 0.
MOST_SEED = 2**63 - 1
Seed = Annotated[int, integers(0, MOST_SEED)]

#: Steps, pictures and whatever is counted in them; products with batches and processes are counted as whole numbers.
Count = Annotated[int, integers(1, 10**12)]
CountFrom0 = Annotated[int, integers(0, 10**12)]

#: Pictures of a batch, and batches of a step.
BatchSize = Annotated[int, integers(1, 65_536)]

#: Processes of one machine.
Processes = Annotated[int, integers(1, 1_024)]

#: Memory and disks, in 10⁹ bytes.
Gigabytes = Annotated[float, reals(0, 1e9, above=True)]

#: Ids as label files hold them: whole numbers that floats hold too.
RawId = Annotated[int, integers(-(2**53), 2**53)]

#: Levels as label files hold them: what float32 holds.
RawLevel = Annotated[float, reals(-1e30, 1e30)]

#: Values that mean "no label" in files, where some have nan or inf.
RawValue = Annotated[float, Within("a number, nan or inf", finite=False)]

#: Weights of red, green and blue in one number of 64 bits.
ChannelWeight = Annotated[float, reals(0, 2**32)]

#: Ids of classes, 255 among them: no label.
ClassId = Annotated[int, integers(0, 255)]
