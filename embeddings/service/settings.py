"""What the service may be asked for, and how much of it: every limit in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, cast

from ...errors import InputError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds on what one client can make the service do.

    Attributes
    ----------
    upload_bytes : int
        Of the body of an upload, counted as it arrives.
    unpacked_bytes : int
        Of an upload once unpacked.
    json_bytes : int
        Of the body of any other request.
    spectra : int
        In one request that is answered at once.
    job_spectra : int
        In one batch job.
    job_hits : int
        That one batch job can have: its spectra times k.
    peaks : int
        In one spectrum.
    k : int
        Hits per query.
    smiles_length : int
        Characters of a structure that is to be drawn.
    requests : int
        That are worked on at one time; the next is answered with 429.
    uploads : int
        Of these, that carry a file.
    queued_spectra : int
        That wait for the model at one time; the next request is answered with 503.
    seconds : float
        For one request, from its first byte to its answer.
    jobs : int
        Kept at one time, finished ones included.
    job_seconds : float
        For the work of one job.
    job_kept_seconds : float
        From the end of a job until its hits are forgotten.
    reader_bytes : int
        Memory of a process that reads uploads.
    """

    upload_bytes: int = 64 * MEBIBYTE
    unpacked_bytes: int = 512 * MEBIBYTE
    json_bytes: int = 2 * MEBIBYTE
    spectra: int = 500
    job_spectra: int = 50_000
    job_hits: int = 1_000_000
    peaks: int = 10_000
    k: int = 100
    smiles_length: int = 1000
    requests: int = 256
    uploads: int = 16
    queued_spectra: int = 5000
    seconds: float = 60.0
    jobs: int = 20
    job_seconds: float = 3600.0
    job_kept_seconds: float = 3600.0
    reader_bytes: int = 4096 * MEBIBYTE

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < (value := getattr(self, field.name)) < float("inf"):
                raise InputError(f"the limit {field.name} is {value}; it must be above 0, and finite")
        if self.queued_spectra < self.spectra:
            raise InputError(
                f"a request may hold {self.spectra} spectra, but only {self.queued_spectra} may wait for the model; "
                "let as many wait as one request may hold"
            )


def limits_of(words: Iterable[str]) -> ServiceLimits:
    """Return the limits with some set by words such as ``spectra=100``.

    Raises
    ------
    InputError
        A word names no limit, or no number that it can be.
    """
    kinds: dict[str, type[int] | type[float]] = {
        field.name: type(getattr(ServiceLimits, field.name)) for field in fields(ServiceLimits)
    }
    given: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in kinds:
            raise InputError(f"--limit {word}: there is no limit of this name; there are {', '.join(kinds)}")
        try:
            given[name] = kinds[name](text)
        except ValueError:
            wanted = "a whole number" if kinds[name] is int else "a number"
            raise InputError(f"--limit {word}: '{text}' is not {wanted}") from None
    return ServiceLimits(**cast(dict[str, Any], given))


@dataclass(frozen=True)
class ServiceSettings:
    """How the service runs.

    Attributes
    ----------
    limits : ServiceLimits
    api_key : str or None
        What every request but those for health, the page and the documentation must carry; None where none is asked.
    usi_resolver : str or None
        URL of the service that gives the spectrum of a USI, with ``{usi}`` in place of it; None where spectra are not
        fetched.
    usi_seconds : float
        For that service to answer.
    usi_bytes : int
        Of its answer.
    batch_spectra : int
        Queries that are embedded together, at most (a request with more is one batch of its own).
    batch_seconds : float
        How long the first query of a batch waits at most, where more were asked before: no longer than a batch of one
        takes more than one more query in a batch.
    coming_seconds : float
        The same where a small file is being read: as long as this takes on a machine that is busy.
    allowed_hosts : frozenset of str or None
        Names by which it may be called besides localhost and addresses (`ionbed.embeddings.service.callers`); None for
        any, where what stands before it looks after that.
    readers : int
        Processes that read uploads and draw structures.
    warm : bool
        Whether the model is loaded and the processes are started before the service is ready, or when they are needed.
    """

    limits: ServiceLimits = ServiceLimits()
    api_key: str | None = None
    usi_resolver: str | None = None
    usi_seconds: float = 10.0
    usi_bytes: int = 4 * MEBIBYTE
    batch_spectra: int = 128
    batch_seconds: float = 0.01
    coming_seconds: float = 0.05
    allowed_hosts: frozenset[str] | None = None
    readers: int = 2
    warm: bool = True

    def __post_init__(self) -> None:
        if self.usi_resolver is not None:
            is_http = self.usi_resolver.startswith(("https://", "http://"))
            if not is_http or self.usi_resolver.count("{usi}") != 1 or "{usi}" in self.usi_resolver.split("/", 3)[2]:
                raise InputError(
                    f"{self.usi_resolver}: is no address of a USI resolver; give an http(s) address with {{usi}} once, "
                    "behind the host"
                )
        if self.api_key is not None and (len(self.api_key) < 16 or not self.api_key.isascii()):
            raise InputError(
                "the API key must be ASCII and have at least 16 characters; make one with 'openssl rand -hex 32'"
            )
