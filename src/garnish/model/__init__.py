"""A model: backbone, owners and decoders put together, and what it is asked for."""
