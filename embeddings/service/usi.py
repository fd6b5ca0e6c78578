"""The spectrum of a Universal Spectrum Identifier, from the one resolver that the service was started with.

A client chooses the identifier and nothing else: neither host nor path, and redirects are not followed. Time and size
of the answer are bounded. The answer is that of the GNPS resolver (``peaks``, ``precursor_mz``, ``precursor_charge``)
or of PROXI (``mzs``, ``intensities``, ``attributes``; https://www.psidev.info/proxi).
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from anyio import to_thread
from pydantic import ValidationError

from ..queries import Query
from .failures import RequestError
from .models import SpectrumModel
from .settings import ServiceSettings
from .uploads import query_of_peaks

if TYPE_CHECKING:
    from .state import Service

logger = logging.getLogger("ionbed")

GNPS_RESOLVER = "https://metabolomics-usi.gnps2.org/json/?usi={usi}"
SELECTED_ION_MZ, CHARGE_STATE = "MS:1000744", "MS:1000041"
"""Accessions of PSI-MS."""

_READ_BYTES = 1 << 16
_UNKNOWN = (400, 404, 410, 422)


async def query_of_usi(usi: str, service: Service) -> Query:
    """Return the query that the resolver gives for a USI.

    Raises
    ------
    RequestError
        The service does not fetch spectra (403), the resolver knows no such spectrum (404), gives none that can be
        used (422) or does not answer as it should (503).
    """
    if service.settings.usi_resolver is None:
        raise RequestError(403, "this service fetches no spectra by USI; it was started without --usi")
    content = await to_thread.run_sync(_fetched, usi, service.settings)
    spectrum = spectrum_in(content)
    if spectrum is None:
        raise RequestError(422, "usi: the resolver gives no spectrum that can be used")
    return query_of_peaks(spectrum.model_copy(update={"name": usi[:200]}), service.limits)


def spectrum_in(content: bytes) -> SpectrumModel | None:
    """Return the spectrum of a resolver's answer, None where it holds none that can be used."""
    try:
        told = json.loads(content)
        if isinstance(told, list):  # of PROXI
            told = told[0]
        fields = _of_proxi(told) if "mzs" in told else _of_gnps(told)
        return SpectrumModel.model_validate(fields)
    except (ValueError, ValidationError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _of_gnps(told: dict[str, Any]) -> dict[str, Any]:
    peaks = [[float(mz), float(intensity)] for mz, intensity in told["peaks"]]
    return {
        "precursor_mz": float(told["precursor_mz"]),
        "charge": _charge(told.get("precursor_charge")),
        "peaks": peaks,
    }


def _of_proxi(told: dict[str, Any]) -> dict[str, Any]:
    stated = {attribute["accession"]: attribute["value"] for attribute in told["attributes"]}
    peaks = [[float(m), float(i)] for m, i in zip(told["mzs"], told["intensities"], strict=True)]
    return {"precursor_mz": float(stated[SELECTED_ION_MZ]), "charge": _charge(stated.get(CHARGE_STATE)), "peaks": peaks}


def _charge(value: Any) -> int | None:
    return int(value) or None if value is not None else None


def _fetched(usi: str, settings: ServiceSettings) -> bytes:
    import requests

    assert settings.usi_resolver is not None, "without a resolver nothing is fetched"
    url = settings.usi_resolver.replace("{usi}", quote(usi, safe=""))
    ends = time.monotonic() + settings.usi_seconds
    content = bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        with requests.get(
            url, headers=headers, timeout=settings.usi_seconds, stream=True, allow_redirects=False
        ) as answer:
            if answer.status_code in _UNKNOWN:
                raise RequestError(404, "usi: the resolver knows no such spectrum")
            if answer.status_code != 200:
                raise _unavailable(f"status {answer.status_code}")
            while part := answer.raw.read1(_READ_BYTES):  # what there is: a server that drips is not waited for
                content += part
                if len(content) > settings.usi_bytes:
                    raise RequestError(422, f"usi: the resolver gives more than {settings.usi_bytes:,} bytes")
                if time.monotonic() > ends:
                    raise _unavailable("it takes too long")
    except (requests.RequestException, OSError, _protocol_error()) as error:
        raise _unavailable(type(error).__name__) from None
    return bytes(content)


def _protocol_error() -> type[Exception]:
    from urllib3.exceptions import HTTPError

    return HTTPError


def _unavailable(reason: str) -> RequestError:
    logger.warning("the resolver of USIs does not answer as it should: %s", reason)
    return RequestError(503, "the resolver of USIs does not answer; try again later", retry_after=60)
