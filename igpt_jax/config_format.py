"""The format of saved configs, and the way from older formats to today's.

A work dir holds configs in two places: `config.json`, and the description of each checkpoint.  Both carry the format
version that they were written in.
"""

FORMAT_VERSION = 3  # 1: checkpoints had no fingerprints; 2: British spelling

# Keys that version 3 renamed, as (section, old key, new key).
_RENAMED_IN_3 = (
    ((), "initialise_from", "initialize_from"),
    (("evaluate", "probe"), "normalised", "normalized"),
)


def upgrade_config(values: dict, version: int) -> dict:
    """Returns a saved config with the keys of the current format.

    Args:
      values: the nested dict of a `RunConfig`, as it was saved.  It is not changed.
      version: the format version that it was saved in, from 1 to `FORMAT_VERSION`.
    """
    if version < 3:
        for section, old, new in _RENAMED_IN_3:
            values = _rename(values, section, old, new)
    return values


def _rename(values: dict, section: tuple[str, ...], old: str, new: str) -> dict:
    if section:
        name, *rest = section
        return values | {name: _rename(values[name], tuple(rest), old, new)} if name in values else values
    return {new if key == old else key: value for key, value in values.items()}
