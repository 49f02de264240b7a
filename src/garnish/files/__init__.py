"""Files: atomic writes, checksums, locks, and strict readers of untrusted pictures, labels, MATLAB, YAML and JSON."""
