"""Settings from flags, variables and defaults."""

import pytest

from schemas.environment import database_url
from schemas.errors import UsageError
from schemas.settings import DEFAULT_DB, Settings, environment, load_settings


def test_flags_go_before_variables_and_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOGRAPH_WORKERS", "3")
    monkeypatch.setenv("kosmograph_slots", "5")
    settings = load_settings(workers=None, model="demo")
    assert (settings.workers, settings.slots, settings.model, settings.db) == (3, 5, "demo", DEFAULT_DB)
    assert load_settings(workers=7).workers == 7


@pytest.mark.parametrize("name", ["KOSMOGRAPH_DBB", "KOSMOGRAPH_", "kosmograph_chunksize"])
def test_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "secret")
    for load in (load_settings, lambda: database_url(None)):
        with pytest.raises(UsageError, match=f"unknown setting {name.upper()} in the environment") as told:
            load()
        assert "secret" not in str(told.value)


@pytest.mark.parametrize(("name", "value"), [("WORKERS", "many"), ("LEASE_S", "0"), ("LOG_LEVEL", "loud")])
def test_value_that_does_not_fit_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KOSMOGRAPH_{name}", value)
    with pytest.raises(UsageError, match=f"^KOSMOGRAPH_{name}: [^\n]+$"):
        load_settings()


def test_child_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(db="sqlite:///a b.db", s3_anonymous=True, decode_timeout_s=1.5, workers=2)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_secrets_are_not_in_the_text_of_settings() -> None:
    assert "hunter2" not in repr(Settings(db="postgresql://a:hunter2@b/c", broker="redis://:hunter2@d"))


@pytest.mark.parametrize("variables", [{}, {"KOSMOGRAPH_DB": "sqlite:///x.db"}, {"kosmograph_db": "sqlite:///y.db"}])
@pytest.mark.parametrize("other", [{}, {"KOSMOGRAPH_MODEL": "demo"}])
@pytest.mark.parametrize("flag", [None, "sqlite:///flag.db"])
def test_short_way_to_the_database_agrees_with_the_settings(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], other: dict[str, str], flag: str | None
) -> None:
    for name, value in (variables | other).items():
        monkeypatch.setenv(name, value)
    assert database_url(flag) == load_settings(db=flag).db
