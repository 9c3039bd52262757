"""The command line: the ``jgmm`` command."""
