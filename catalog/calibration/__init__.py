"""From evidence to the chance of being right: a map for each model and task, fitted on boxes that are known."""
