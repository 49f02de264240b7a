"""The subcommands of ``garnish``, one per file: ``parser()`` and ``run(words) -> exit code``."""
