"""Whether a text names a model on the Hugging Face hub, and a quick look whether the hub has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from ..errors import InputError

TIMEOUT = 5.0
"""Seconds to wait for the hub's answer whether it has a model; the download that follows waits longer."""

_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def is_hub_id(text: str) -> bool:
    """Return whether a text reads ``owner/name``, and there is no folder ``owner`` here, of which it would be a path.

    What was downloaded before is loaded whatever folders there are.
    """
    return reads_as_hub_id(text) and (not Path(text).parent.exists() or is_in_cache(text))


def reads_as_hub_id(text: str) -> bool:
    """Return whether a text has the form ``owner/name``."""
    return _ID.fullmatch(text) is not None


def is_in_cache(repository: str) -> bool:
    """Return whether a model was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def can_be_downloaded(repository: str) -> bool:
    """Return whether the hub has a model, asked once; False where it cannot be asked and a copy is in the cache.

    Raises
    ------
    InputError
        The hub has no such model, or cannot be reached and there is no copy.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    nothing_here = f"{repository}: is not a model folder here, and"
    # The two bases of the library's own error are the errors of its HTTP client and of the system.
    unreachable = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json", endpoint=constants.ENDPOINT), timeout=TIMEOUT)
    except GatedRepoError:
        raise InputError(
            f"{nothing_here} the hub's model of that name is not open to this login; ask for access there"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status not in (401, 404):
            why = f"the hub answers {status} to whether it has it"
        else:
            raise InputError(
                f"{nothing_here} the hub has none of that name (or a private one, and nobody is logged in); name a "
                "model folder, or a model of the hub as owner/name"
            ) from None
    except OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set"
    except unreachable as error:
        why = f"the hub cannot be reached to look for it there ({' '.join(str(error).split())[:100]})"
    else:
        return True
    if is_in_cache(repository):
        return False
    raise InputError(f"{nothing_here} {why}; name a model folder, or try again when the hub can be reached")
