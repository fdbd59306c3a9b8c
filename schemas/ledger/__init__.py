"""The ledger: the only code that changes the state of jobs, chunks and outcomes.

    jobs          open, pause, resume, cancel, finish
    listing       items into chunks, with the cursor; what is annotated already is settled here
    dispatch      pending → queued; lost and expired chunks back to pending
    work          queued → running: claim, renew, release
    settlement    running → done: the one primitive that completes a chunk
    retries       failed outcomes into new chunks
    breaker       what is the source's fault pauses the job
    canaries      so does a worker whose model says other things than before
    announcements which ends and pauses somebody is still to be told
    pruning       old jobs go, and what no job refers to any more
    calibrations  what trust in boxes goes through, for all jobs of a model

    known, outcomes, records, states and bulk are parts of these.

Every transition is one conditional statement, and the number of rows that it changed is its answer:

    chunk:  pending → queued → running → done
            queued | running ─(lease expired, or released)→ pending
    job:    running ⇄ paused → finished | cancelled; opening it again, or `retry`, makes it running
            finished | cancelled → cancelled, being pruned → gone
"""
