"""Drawing maps as pictures: colours, contact sheets, image files; with NumPy and Pillow only."""
