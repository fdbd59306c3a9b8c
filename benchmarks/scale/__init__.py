"""What everything but the model costs, and how it grows: from a thousand images to a million, on both databases.

    python -m benchmarks.scale                 annotate as a person runs it, sizes × databases: rates, CPU, memory, disk
    python -m benchmarks.scale.stages          queue and ledger, stage by stage, with decoding taken out
    python -m benchmarks.scale.registration    a manifest into the ledger; again with nothing new; killed and again
    python -m benchmarks.scale.workers         several workers and two dispatchers on one PostgreSQL
    python -m benchmarks.scale.status          `status` and the dispatcher before millions of chunk rows
    python -m benchmarks.scale.recovery        a worker is killed: how long until its images are done by another
    python -m benchmarks.scale.tables FILE     the figures that all of these keep in one JSON file, as Markdown

Each takes `--json FILE` and adds its part to what the file holds. Sizes and databases are options; the defaults take
minutes.
"""
