"""From sources to the queue: listing, registration, dispatch."""
