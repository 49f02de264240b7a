"""Places that are not folders of this machine: object stores, by fsspec."""
