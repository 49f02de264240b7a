"""Names of complete published SegFormers, by which recipes and commands tell them from folders; needs no torch."""

from __future__ import annotations

#: name → Hub id of the published weights, encoder and decoder, trained on ADE20K
FINISHED = {
    f"segformer_b{number}": f"nvidia/segformer-b{number}-finetuned-ade-{side}-{side}"
    for number, side in enumerate((512, 512, 512, 512, 512, 640))
}
