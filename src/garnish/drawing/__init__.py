"""Maps as pictures: colours, contact sheets, files. Numpy and Pillow alone."""
