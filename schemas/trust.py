"""Trust in a box, as SQL: its evidence, through the calibration of its model and task where there is one.

It is worked out when it is asked for, so that a calibration holds at once for everything that was annotated before it.
"""


def trust(box: str, recipe: str) -> str:
    """The expression, in [0, 1], for the aliases of a row of `boxes` and its row of `recipes`; null without evidence.

    A calibration is piecewise linear: each knot says how it goes on from there to the next one. It is found before its
    knots, and not joined to them: PostgreSQL then steps down the index of the knots, instead of sorting them all.
    """
    fit = f"""(
        SELECT fit.id FROM calibrations fit
        WHERE fit.model = {recipe}.model AND fit.revision = {recipe}.revision AND fit.task = {recipe}.task
              AND fit.verify = {recipe}.verify)"""
    calibrated = f"""(
        SELECT knot.trust + knot.slope * ({box}.evidence - knot.evidence) FROM calibration_knots knot
        WHERE knot.calibration_id = {fit} AND knot.evidence <= {box}.evidence
        ORDER BY knot.evidence DESC LIMIT 1)"""
    return f"COALESCE({calibrated}, {box}.evidence)"
