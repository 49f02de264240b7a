"""One verb of the command line a file: ``parser()`` and ``run(words) -> exit code``."""
