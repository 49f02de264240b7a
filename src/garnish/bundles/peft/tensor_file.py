"""A safetensors file of a folder: its header is read and compared first, its tensors later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from garnish.bundles.tensors import read_tensors
from garnish.checking.finite import not_finite
from garnish.errors import BundleError, one_line
from garnish.files.regular import read_regular
from garnish.files.safetensors_header import DamagedHeader, TensorFacts, read_header

#: Largest file, bytes: some hundreds of megabytes are adapters of rank 64 at every layer of the largest trunks.
MOST_BYTES = 2**30
#: Most tensors of a file.
MOST_TENSORS = 50_000
#: Types of the values of adapters and heads.
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A file that is known by its header.

    Attributes:
        file: its path.
        facts: tensor name → type and shape.
    """

    file: Path
    facts: Mapping[str, TensorFacts]

    @classmethod
    def open(cls, file: Path) -> TensorFile:
        """Read the header of a file.

        Raises:
            BundleError: not a regular file, larger than :data:`MOST_BYTES`, or damaged.
        """
        try:
            facts = read_header(file, MOST_BYTES)
        except OSError as error:
            raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); write the folder again") from error
        except DamagedHeader as error:
            raise BundleError(f"{file}: is damaged ({one_line(error, 160)}); write the folder again") from error
        if len(facts) > MOST_TENSORS:
            raise BundleError(f"{file}: holds {len(facts):,} tensors, more than {MOST_TENSORS:,}; is it an adapter?")
        return cls(file=file, facts=facts)

    def read(self) -> dict[str, Tensor]:
        """The tensors by name, of the shapes of the header; floating-point ones as float32.

        Raises:
            BundleError: the file cannot be read or has changed since, or a value is not finite in float32.
        """
        try:
            data = read_regular(self.file, MOST_BYTES)
        except OSError as error:
            raise BundleError(f"{self.file}: cannot be read ({one_line(error, 120)}); write it again") from error
        found = read_tensors(data, str(self.file))
        if {name: tuple(tensor.shape) for name, tensor in found.items()} != {n: f.shape for n, f in self.facts.items()}:
            raise BundleError(f"{self.file}: changed while it was read; let nothing write there")
        made = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
        if odd := not_finite(made):
            raise BundleError(f"{self.file}: {odd} (in float32); it is of a run that diverged, or damaged")
        return made


def can_fill(facts: TensorFacts, target: Tensor) -> bool:
    """Whether a tensor of a file can be copied into one of a model: of its shape, and both of floats or both not."""
    return facts.shape == tuple(target.shape) and (facts.dtype in FLOATS) == target.is_floating_point()
