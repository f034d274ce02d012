"""The format version of saved configs, and the upgrade of configs in older formats.

A workdir holds configs in two places: `config.json`, and the description of each checkpoint. Each records the format
version that it was written in.
"""

from typing import Any

FORMAT_VERSION = 3  # in version 1, checkpoints had no fingerprints; up to version 2, some keys were in British spelling

# Keys that version 3 renamed, as (section, old key, new key).
_RENAMED_IN_3 = (
    ((), "initialise_from", "initialize_from"),
    (("evaluate", "probe"), "normalised", "normalized"),
)


def upgrade_config(values: dict[str, Any], version: int) -> dict[str, Any]:
    """Returns a saved config with the keys of the current format.

    Args:
      values: the nested dict of a `RunConfig`, as it was saved; it is not modified.
      version: the format version that it was saved in, from 1 to `FORMAT_VERSION`.
    """
    if version < 3:
        for section, old, new in _RENAMED_IN_3:
            values = _rename(values, section, old, new)
    return values


def _rename(values: dict[str, Any], section: tuple[str, ...], old: str, new: str) -> dict[str, Any]:
    if section:
        name, *rest = section
        return values | {name: _rename(values[name], tuple(rest), old, new)} if name in values else values
    return {new if key == old else key: value for key, value in values.items()}
