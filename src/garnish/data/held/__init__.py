"""Pictures and labels of any source that people hold: Dataset classes, lists, columns; one idea a file."""
