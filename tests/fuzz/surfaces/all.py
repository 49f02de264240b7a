"""All surfaces."""

from __future__ import annotations

from ..surface import Surface
from .annotations import AnnotationLabels
from .bundles import Bundles
from .checkpoints import Checkpoints
from .comparison import Comparison
from .descriptions import Descriptions
from .exported import Exported
from .features import Features
from .labels import Labels
from .matlab import Matlab
from .overrides import Overrides
from .peft import Peft
from .pictures import Pictures
from .planted import Planted
from .rasters import Rasters
from .recipes import Recipes
from .weights import Weights

SURFACES: tuple[type[Surface], ...] = (
    Bundles,
    Checkpoints,
    Peft,
    Recipes,
    Overrides,
    Descriptions,
    Labels,
    AnnotationLabels,
    Pictures,
    Rasters,
    Matlab,
    Comparison,
    Weights,
    Features,
    Exported,
)


def surface_named(name: str) -> Surface:
    """The surface of a name; "planted" is that of faults that the fuzzer must find."""
    return next(made for made in (*SURFACES, Planted) if made.name == name)()
