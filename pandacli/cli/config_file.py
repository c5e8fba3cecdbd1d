"""The file in which a user keeps defaults for the options."""

from pathlib import Path
from typing import Any

from pandacli.errors import UsageError


def config_path() -> Path:
    """Where the file is looked for, on Linux `~/.config/panda/config.toml`."""
    from platformdirs import user_config_path

    return user_config_path("panda") / "config.toml"


def read_table(path: Path) -> dict[str, Any]:
    """Returns what the file at `path` sets; nothing if there is no file.

    Raises:
        UsageError: The file cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    import tomllib  # most have no such file

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
