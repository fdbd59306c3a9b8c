"""How well a model grounds a data set whose annotations lie on this disk, by the protocols of the KOSMOS-2 paper."""
