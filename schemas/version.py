"""The version of the schema that this Kosmograph reads and writes: the newest of `schemas/migrations/versions`."""

HEAD = "0006"
