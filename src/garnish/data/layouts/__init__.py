"""Published arrangements of data sets, one a file."""
