"""The front door: the command line, the local runtime, doctor."""
