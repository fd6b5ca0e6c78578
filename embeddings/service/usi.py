"""The spectrum of a Universal Spectrum Identifier, from the one resolver that the service was started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..queries import Query
from .failures import RequestError

if TYPE_CHECKING:
    from .state import Service


async def query_of_usi(usi: str, service: Service) -> Query:
    """Return the query that the resolver gives for a USI.

    Raises
    ------
    RequestError
        The service does not fetch spectra, or the resolver gives none that can be used.
    """
    if service.settings.usi_resolver is None:
        raise RequestError(403, "this service fetches no spectra by USI; it was started without --usi")
    raise RequestError(503, "the resolver cannot be asked", retry_after=60)
