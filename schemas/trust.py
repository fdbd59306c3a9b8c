"""Trust in a box, as SQL: its evidence, through the calibration of its model and task where there is one.

It is worked out when it is asked for, so that a calibration holds at once for everything that was annotated before it.
"""


def trust(box: str, recipe: str) -> str:
    """The expression, in [0, 1], for the aliases of a row of `boxes` and its row of `recipes`; null without evidence.

    A calibration is piecewise linear: each knot says how it goes on from there to the next one.
    """
    calibrated = f"""(
        SELECT t.trust + t.slope * ({box}.evidence - t.evidence)
        FROM calibrations q CROSS JOIN calibration_knots t
        WHERE q.model = {recipe}.model AND q.revision = {recipe}.revision AND q.task = {recipe}.task
              AND q.verify = {recipe}.verify AND t.calibration_id = q.id AND t.evidence <= {box}.evidence
        ORDER BY t.evidence DESC LIMIT 1)"""
    return f"COALESCE({calibrated}, {box}.evidence)"
