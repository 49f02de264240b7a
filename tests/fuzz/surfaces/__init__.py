"""One file for each kind of thing that is read from strangers."""
