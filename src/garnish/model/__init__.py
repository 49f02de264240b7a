"""The model: a frozen backbone, the adapters of its owners and the decoders of its tasks; prediction and its costs."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
