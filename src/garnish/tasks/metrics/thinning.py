"""Thinning of boundary maps to lines one pixel wide, of one mask or of a probability map at all thresholds at once.

The rule is that of MATLAB's ``bwmorph(map, 'thin', Inf)``, which the boundary benchmarks call: parallel deletion in
two alternating halves (Guo & Hall 1989, as stated in Lam, Lee & Suen 1992, page 879) until nothing changes; outside
the picture is background. With x₁ … x₈ the neighbours of a pixel, counter-clockwise from the right one (x₉ = x₁):

- exactly one i in 1 … 4 has x₂ᵢ₋₁ = 0 and (x₂ᵢ = 1 or x₂ᵢ₊₁ = 1);
- 2 ≤ min(Σᵢ x₂ᵢ₋₁ ∨ x₂ᵢ, Σᵢ x₂ᵢ ∨ x₂ᵢ₊₁) ≤ 3;
- first half: x₁ ∧ (x₂ ∨ x₃ ∨ ¬x₈) = 0; second half: x₅ ∧ (x₆ ∨ x₇ ∨ ¬x₄) = 0.

Shape letters: H W pixels, T thresholds, N pixels that remain at any threshold, A pixels to test, K machine words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Indices = NDArray[np.intp]

#: Pixels tested at once, so that their words and the terms of the rule fit the processor's cache.
_CHUNK = 8192


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin one mask: (H, W) bool → (H, W) bool."""
    pixels, kept = thin_levels(mask.astype(np.int64), 1)
    out = np.zeros(mask.shape, bool)
    out.reshape(-1)[pixels[kept[0]]] = True
    return out


def thin_levels(levels: NDArray[np.integer], num_thresholds: int) -> tuple[Indices, NDArray[np.bool_]]:
    """Thin the masks of a map at all thresholds; the result for each is as if it were thinned alone.

    Thinned masks of two thresholds are not nested, though the masks are, so each has to be thinned. A pixel's bits at
    all thresholds are packed into a few machine words and the rule is a Boolean formula, so one pass thins all of
    them; a pixel is tested again only after it or a neighbour changed.

    Args:
        levels: (H, W) number of thresholds, from the lowest up, that each pixel passes: 0 … ``num_thresholds``.
        num_thresholds: T.

    Returns:
        (N,) indices into the flattened picture, ascending, and (T, N) bool: which of them remain at each threshold.
    """
    height, width = levels.shape
    stride = width + 2
    padded = np.zeros((height + 2, stride), np.int64)
    padded[1:-1, 1:-1] = levels
    flat = padded.reshape(-1)
    words = _packed(flat, num_thresholds)
    # From the right neighbour counter-clockwise, the row above first.
    around = np.array([1, 1 - stride, -stride, -1 - stride, -1, stride - 1, stride, stride + 1])
    alive = np.flatnonzero(flat)
    # Only pixels with a neighbour that passes fewer thresholds have a bit that can be deleted.
    lower = np.zeros(len(alive), bool)
    for step in around:
        lower |= flat[alive + step] < flat[alive]
    # Pixels that each half of the rule still has to test.
    waiting = [alive[lower], alive[lower]]
    mark = np.zeros(len(flat), bool)
    half = 0
    while len(waiting[0]) or len(waiting[1]):
        looked = waiting[half]
        waiting[half] = looked[:0]
        changed = _delete(words, looked, around, half)
        if len(changed):
            mark[changed] = True
            for step in around:
                mark[changed + step] = True
            touched = np.flatnonzero(mark)
            mark[touched] = False
            touched = touched[(words[:, touched] != 0).any(0)]
            for other in (0, 1):
                mark[waiting[other]] = True
                mark[touched] = True
                waiting[other] = np.flatnonzero(mark)
                mark[waiting[other]] = False
        half = 1 - half
    stays = alive[(words[:, alive] != 0).any(0)]
    octets = np.ascontiguousarray(words[:, stays].T).astype("<u8").view(np.uint8).reshape(len(stays), 8 * len(words))
    kept = np.unpackbits(octets, axis=1, count=num_thresholds, bitorder="little").T.astype(bool)
    rows, columns = np.divmod(stays, stride)
    return (rows - 1) * width + columns - 1, np.ascontiguousarray(kept)


def _packed(levels: NDArray[np.int64], num_thresholds: int) -> Bits:
    """(…,) levels → (K, …) words; bit b of word k is set where the level is above 64·k + b."""
    num_words = -(-num_thresholds // 64)
    passed = np.arange(num_thresholds + 1)[:, None] > np.arange(64 * num_words)
    table = np.packbits(passed, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    return np.ascontiguousarray(table.T[:, levels])


def _delete(words: Bits, pixels: Indices, around: NDArray[np.intp], half: int) -> Indices:
    """Apply one half of the rule in place to (A,) pixels; returns those of which a bit was deleted."""
    gone = np.empty((len(words), len(pixels)), np.uint64)
    for start in range(0, len(pixels), _CHUNK):
        part = pixels[start : start + _CHUNK]
        places = part + around[:, None]
        for word, out in zip(words, gone, strict=True):
            out[start : start + _CHUNK] = word[part] & _deletable(word[places], half)
    change = (gone != 0).any(0)
    changed: Indices = pixels[change]
    words[:, changed] &= ~gone[:, change]
    return changed


def _deletable(neighbours: Bits, half: int) -> Bits:
    """(8, A) words of the neighbours → (A,) words with the bits that one half of the rule deletes."""
    x1, x2, x3, x4, x5, x6, x7, x8 = neighbours
    # Pairs of neighbours: a for (x₁, x₂), (x₃, x₄) …, c for (x₂, x₃) … (x₈, x₁).
    a1, a2, a3, a4 = x1 | x2, x3 | x4, x5 | x6, x7 | x8
    c1, c2, c3, c4 = x2 | x3, x4 | x5, x6 | x7, x8 | x1
    b1, b2, b3, b4 = c1 & ~x1, c2 & ~x3, c3 & ~x5, c4 & ~x7
    # Exactly one: an odd number, but not three of the four.
    once = (b1 ^ b2 ^ b3 ^ b4) & ~((b1 & b2) | (b3 & b4))
    a12, a34, c12, c34 = a1 & a2, a3 & a4, c1 & c2, c3 & c4
    two = (a12 | a34 | ((a1 | a2) & (a3 | a4))) & (c12 | c34 | ((c1 | c2) & (c3 | c4)))
    four = a12 & a34 & c12 & c34
    last = x5 & (x6 | x7 | ~x4) if half else x1 & (x2 | x3 | ~x8)
    found: Bits = once & two & ~four & ~last
    return found
