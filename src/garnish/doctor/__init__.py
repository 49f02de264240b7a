"""The doctor: what is wrong with a data set, found before training; one file for each check."""
