"""Calibrations: one for each model, revision, task and way of verifying."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert

from schemas.calibration import Calibration, Identity
from schemas.database import Database
from schemas.ledger.bulk import insert_into, plain
from schemas.tables import calibration_knots, calibrations, unix_now


def put_calibrations(database: Database, some: Sequence[Calibration]) -> None:
    """All of them hold from now on, in place of older ones of their kind."""
    with database.write() as connection:
        for calibration in some:
            _put(connection, calibration, replace=True)
        _analyze(connection)


def add_calibrations(database: Database, some: Sequence[Calibration]) -> list[Calibration]:
    """Those of them that hold now, because the database had none of their kind."""
    with database.write() as connection:
        new = [calibration for calibration in some if _put(connection, calibration, replace=False)]
        if new:
            _analyze(connection)
        return new


def _put(connection: Connection, calibration: Calibration, *, replace: bool) -> bool:
    """Whether it was written."""
    named = {name: plain(value) for name, value in calibration.identity._asdict().items()}
    row = {"truth": plain(calibration.truth), "report": calibration.report.model_dump_json(), "created_at": unix_now()}
    wanted = insert_into(connection.dialect.name, calibrations).values(**named, **row).returning(calibrations.c.id)
    wanted = (
        wanted.on_conflict_do_update(index_elements=Identity._fields, set_=row)
        if replace
        else wanted.on_conflict_do_nothing()
    )
    id_ = connection.execute(wanted).scalar()
    if id_ is None:
        return False
    connection.execute(delete(calibration_knots).where(calibration_knots.c.calibration_id == id_))
    names = ("calibration_id", "evidence", "trust", "slope")
    rows = [dict(zip(names, (id_, *knot), strict=True)) for knot in calibration.knots]
    connection.execute(insert(calibration_knots), rows)
    return True


def _analyze(connection: Connection) -> None:
    """A few hundred rows are too few for PostgreSQL to look at them by itself, and it would sort them for each box."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE calibrations, calibration_knots")
