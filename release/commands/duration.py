"""How commands say how long something takes."""


def duration(hours: float) -> str:
    """ "3.4 hours", or below one "12.0 minutes", below one of these "40 seconds"."""
    for amount, unit in ((hours, "hours"), (60 * hours, "minutes")):
        if amount >= 1:
            return f"{amount:,.1f} {unit}"
    return f"{3600 * hours:.2g} seconds"
