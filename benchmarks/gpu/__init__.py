"""The engine on a GPU: identity, phases, rates, and how far they are from what the hardware can do."""
