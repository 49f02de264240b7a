"""Layers that several decoders share: deformable convolution, attention, upsampling, batch norms."""
