"""A fuzzer of everything that garnish reads from strangers: files, and words of the command line.

``python -m tests.fuzz --inputs 10000`` runs it and prints a table. Each *surface* (a file of :mod:`surfaces`) makes
small valid specimens, damages a copy of one, reads it as a user would, and judges what was read. An input is sound if
it is refused in one line that says where, or accepted and read rightly; everything else is a finding.
"""
