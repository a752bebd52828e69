"""The command line: ``python -m dbzero <command>``.

Lives here: argument parsing and what a terminal shows. May import: the public names of ``dbzero`` and, for ``check``, ``dbzero.storage``.
Promises: exit status 0 only when the command did what it was asked, errors as one sentence on stderr, Ctrl-C leaves a whole store behind.
"""
