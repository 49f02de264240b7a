"""The backbone families: one file each, plus loading of weights and ``garnish.backbone``."""
