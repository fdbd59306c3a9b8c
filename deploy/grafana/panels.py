"""What the dashboard shows: its panels, with their PromQL.

Several dispatchers tell the same of one database: what they tell is taken by `max`, what workers tell by `sum`.
"""

from dataclasses import dataclass

RATE = "$__rate_interval"
HERE = 'instance=~"$instance"'
JOBS = "max by (job, outcome) (kosmograph_job_images)"
LEFT = 'max by (job) (kosmograph_job_images{outcome="pending"})'
SETTLED = f"sum(rate(kosmograph_images_total[{RATE}]))"


@dataclass(frozen=True)
class Panel:
    """A panel. queries: each a legend and PromQL. width: of the 24 columns."""

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def stat(title: str, unit: str, description: str, query: str) -> Panel:
    """One figure."""
    return Panel(title, unit, description, (("", query),), kind="stat", width=3)


def quantiles(title: str, metric: str, description: str) -> Panel:
    """The median, what one in twenty exceeds, and one in a hundred."""
    buckets = f"sum by (le) (rate({metric}_bucket{{{HERE}}}[{RATE}]))"
    shares = (("median", 0.5), ("95%", 0.95), ("99%", 0.99))
    return Panel(
        title, "s", description, tuple((name, f"histogram_quantile({share}, {buckets})") for name, share in shares)
    )


def by_instance(title: str, unit: str, description: str, query: str) -> Panel:
    """A line for each worker."""
    return Panel(title, unit, description, (("{{instance}}", query),))


ROWS = (
    Row(
        "At a glance",
        (
            stat("Images per second", "ops", "Outcomes that are committed: images × recipes, of all workers.", SETTLED),
            stat(
                "Images left",
                "short",
                "What the unfinished jobs (the newest 50) have not settled, in images × recipes.",
                f"sum({LEFT}) or vector(0)",
            ),
            stat(
                "Time left",
                "s",
                "Images left at the present rate. While a job is still listed, more come.",
                f"sum({LEFT}) / {SETTLED}",
            ),
            stat(
                "Failed",
                "percentunit",
                "The share of outcomes that are failures, in the time that is shown.",
                'sum(increase(kosmograph_images_total{outcome="failed"}[$__range]))'
                " / sum(increase(kosmograph_images_total[$__range]))",
            ),
            stat("Workers", "short", "Workers that hold chunks, by the ledger's leases.", "max(kosmograph_workers)"),
            stat(
                "Engine busy",
                "percentunit",
                "Of the time with a chunk in work, how much the engine computed.",
                f"sum(rate(kosmograph_engine_busy_seconds_total[{RATE}]))"
                f" / sum(rate(kosmograph_work_seconds_total[{RATE}]))",
            ),
            stat(
                "Oldest lease",
                "s",
                "Since when the chunk that is longest in work has been claimed.",
                "max(kosmograph_oldest_lease_seconds)",
            ),
            stat(
                "Paused jobs",
                "short",
                "Jobs that wait for a person: the breaker, a drift, or `kosmograph pause`.",
                'max(kosmograph_jobs{state="paused"})',
            ),
        ),
    ),
    Row(
        "Jobs",
        (
            Panel(
                "Progress",
                "percentunit",
                "Settled of what is listed so far, of each unfinished job.",
                (("{{job}}", f"1 - {LEFT} / sum by (job) ({JOBS})"),),
                kind="bargauge",
            ),
            Panel(
                "Images of unfinished jobs",
                "short",
                "By outcome, with those that are still to come.",
                (("{{outcome}}", f"sum by (outcome) ({JOBS})"),),
                stacked=True,
            ),
            Panel("Jobs", "short", "By state.", (("{{state}}", "max by (state) (kosmograph_jobs)"),), stacked=True),
            Panel(
                "Why jobs are paused",
                "short",
                "`kosmograph resume JOB` lets one go on when its reason is mended.",
                (("{{job}}: {{reason}}", "max by (job, reason) (kosmograph_job_paused)"),),
                kind="bargauge",
            ),
            Panel(
                "Images per second",
                "ops",
                "Outcomes by what became of them. Reused ones cost no computing.",
                (("{{outcome}}", f"sum by (outcome) (rate(kosmograph_images_total[{RATE}]))"),),
                stacked=True,
            ),
            Panel(
                "Failures per second",
                "ops",
                "By code: `kosmograph failures JOB` lists the images.",
                (("{{code}}", f'sum by (code) (rate(kosmograph_images_total{{outcome="failed"}}[{RATE}]))'),),
                stacked=True,
            ),
        ),
    ),
    Row(
        "Engine",
        (
            by_instance(
                "Busy share",
                "percentunit",
                "How much of its time with work the engine computes. Less than 90%: it waits for pictures.",
                f"rate(kosmograph_engine_busy_seconds_total{{{HERE}}}[{RATE}])"
                f" / rate(kosmograph_work_seconds_total{{{HERE}}}[{RATE}])",
            ),
            by_instance(
                "Images per second",
                "ops",
                "Of each worker.",
                f"sum by (instance) (rate(kosmograph_images_total{{{HERE}}}[{RATE}]))",
            ),
            Panel(
                "Slots",
                "short",
                "Rows that are decoded at once, and how many there may be.",
                (("in use", f"sum(kosmograph_slots_in_use{{{HERE}}})"), ("slots", f"sum(kosmograph_slots{{{HERE}}})")),
            ),
            Panel(
                "Tokens per second",
                "ops",
                "Generated by all workers.",
                (("tokens", f"sum(rate(kosmograph_tokens_total{{{HERE}}}[{RATE}]))"),),
            ),
            Panel(
                "Answers and images per second",
                "ops",
                "An image is encoded once for all prompts that ask about it.",
                (
                    ("answers", f"sum(rate(kosmograph_generations_total{{{HERE}}}[{RATE}]))"),
                    ("images encoded", f"sum(rate(kosmograph_encoded_images_total{{{HERE}}}[{RATE}]))"),
                ),
            ),
            Panel(
                "Waiting",
                "short",
                "Requests that are loaded and have no slot; chunks that are claimed.",
                (
                    ("requests", f"sum(kosmograph_requests_waiting{{{HERE}}})"),
                    ("chunks in work", f"sum(kosmograph_chunks_in_work{{{HERE}}})"),
                ),
            ),
        ),
    ),
    Row(
        "What takes how long",
        (
            quantiles("Fetch", "kosmograph_fetch_seconds", "Reading an image's bytes, in the loader processes."),
            quantiles("Decode", "kosmograph_decode_seconds", "From bytes to 224×224 pixels, in the loader processes."),
            quantiles("Wait", "kosmograph_queue_wait_seconds", "A request, from when it is submitted to its prefill."),
            quantiles("Encode", "kosmograph_encode_seconds", "A prefill: vision and prompts of a batch."),
            quantiles("Decode step", "kosmograph_decode_step_seconds", "A token for each row in the slots."),
            quantiles("Commit", "kosmograph_commit_seconds", "The transaction that settles a chunk."),
        ),
    ),
    Row(
        "Queue and ledger",
        (
            Panel(
                "Chunks",
                "short",
                "Unfinished ones by state, counted to 100,000. Queued ones stay below queue_high.",
                (("{{state}}", "max by (state) (kosmograph_chunks)"),),
                stacked=True,
            ),
            Panel(
                "Queue length",
                "short",
                "Messages in the broker. Empty with pending chunks: look at the dispatcher.",
                (("{{queue}}", "max by (queue) (kosmograph_queue_length)"),),
            ),
            Panel(
                "Workers and leases",
                "short",
                "Workers that hold chunks by the ledger.",
                (("workers", "max(kosmograph_workers)"),),
            ),
            Panel(
                "Chunks sent per second",
                "ops",
                "And again: lost by the broker, stale (unread), expired (a worker died).",
                (
                    ("sent", f"sum(rate(kosmograph_chunks_sent_total[{RATE}]))"),
                    ("again: {{why}}", f"sum by (why) (rate(kosmograph_chunks_republished_total[{RATE}]))"),
                ),
            ),
            Panel(
                "Oldest lease",
                "s",
                "Since when the chunk that is longest in work has been claimed.",
                (("oldest", "max(kosmograph_oldest_lease_seconds)"),),
            ),
            by_instance(
                "Since the last commit",
                "s",
                "Of each worker. It grows where one is stuck, or has no work.",
                f"time() - kosmograph_last_progress_timestamp_seconds{{{HERE}}}",
            ),
        ),
    ),
    Row(
        "What went wrong",
        (
            Panel(
                "Outages and reconnects",
                "short",
                "In five minutes: spells without database or broker, and workers that connected anew.",
                (
                    ("outages", "sum(increase(kosmograph_outages_total[5m]))"),
                    ("reconnects", f"sum(increase(kosmograph_broker_reconnects_total{{{HERE}}}[5m]))"),
                ),
            ),
            Panel(
                "Loader deaths and refused messages",
                "short",
                "In five minutes: decoders that crashed, and messages that were none of ours.",
                (
                    ("loader deaths", f"sum(increase(kosmograph_loader_deaths_total{{{HERE}}}[5m]))"),
                    ("refused messages", f"sum(increase(kosmograph_messages_refused_total{{{HERE}}}[5m]))"),
                ),
            ),
            Panel(
                "Workers",
                "short",
                "What each has loaded, and on what. Two revisions of a model are two queues.",
                (("", f"kosmograph_worker_info{{{HERE}}}"),),
                kind="table",
            ),
        ),
    ),
)
