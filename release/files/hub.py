"""The Hub, which is asked for nothing while it is out of reach.

Its clients try a call again for a minute, with a warning each time, where there is no network.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

PROBE_S = 5.0
NUMBER = re.compile(r"^\[Errno -?\d+\] ")  # of the system's error, which says nothing to people


def out_of_reach() -> str:
    """Why the Hub gives no answer, in a few words; "" where it gives one, whatever it says."""
    import httpx2
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_S)
    except (httpx2.HTTPError, OSError) as error:
        reason = NUMBER.sub("", (str(error).splitlines() or [""])[0]) or type(error).__name__
        return f"{constants.ENDPOINT} is out of reach: {reason}"
    return ""


@contextmanager
def asking_hub() -> Iterator[str]:
    """Within it clients of a Hub that is out of reach find what its cache has, and fail at once for
    all else, as with HF_HUB_OFFLINE. Yields why it is out of reach; "" where it is not, or where
    the user asked for that.
    """
    from huggingface_hub import constants

    why = "" if constants.is_offline_mode() else out_of_reach()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(why)
    try:
        yield why
    finally:
        constants.HF_HUB_OFFLINE = before
