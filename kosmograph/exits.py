"""How a command ends: the exit codes that schedulers go by. Exceptions have their own: 1, 2 for wrong usage, 75."""

DONE, TROUBLE, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130
"""Well; environment, input, or a job that was paused or cancelled; finished, and some images failed; Ctrl-C."""
