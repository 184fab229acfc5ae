"""SLURM's lengths of time."""


def seconds(text: str) -> float | None:
    """Of `1-02:03:04`, `02:03:04` or `3:04`; None for UNLIMITED, N/A and whatever else is no length of time."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts) or (dash and not days.isdecimal()):
        return None
    numbers = [int(part) for part in parts]
    if not dash and len(numbers) == 1:  # a number alone is minutes
        return 60.0 * numbers[0]
    # behind days, what there is begins with hours
    hours, minutes, rest = (numbers + [0, 0])[:3] if dash else [0, 0, *numbers][-3:]
    return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + rest)
