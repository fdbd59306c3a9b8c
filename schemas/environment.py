"""The variables of the environment: ours, the one of them that must be known before the settings are, and CUDA's."""

import os

PREFIX = "KOSMOGRAPH_"
DEFAULT_DB = "sqlite:///kosmograph.db"


def our_variables() -> dict[str, str]:
    """Every `KOSMOGRAPH_` variable, by its name in capitals."""
    return {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}


def database_url(flag: str | None) -> str:
    """The database's URL, as `load_settings(db=flag).db` has it.

    Most often no other variable is set, and who only looks need not wait for the settings to be imported.
    """
    ours = our_variables()
    if ours.keys() - {f"{PREFIX}DB"}:
        from schemas.settings import load_settings

        return load_settings(db=flag).db
    return flag if flag is not None else ours.get(f"{PREFIX}DB", DEFAULT_DB)


def visible_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, as numbers or names; None where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else [one for one in map(str.strip, visible.split(",")) if one not in ("", "-1")]


def with_variables(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment with these variables on top: what a command is run in."""
    return os.environ | variables
