"""The connection to Milvus: its address, the token, requests that are repeated, and errors in one line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..errors import InputError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN_VARIABLE: Final = "IONBED_MILVUS_TOKEN"  # the name of a variable, not what it holds

ATTEMPTS = 4
FIRST_WAIT = 0.5  # s, twice as long each time
_TIMEOUT = 60.0  # s
_TRANSIENT_CODES = frozenset({1, 2, 4, 8})  # not ready, unavailable, too many requests, rate limit


@dataclass(frozen=True)
class Address:
    """Where a collection is.

    Attributes
    ----------
    uri : str
        ``http://host:19530``, or the path of a file of milvus-lite, which ends with ``.db``.
    collection : str

    Raises
    ------
    InputError
        The address holds a password, or the name is none that Milvus takes.
    """

    uri: str
    collection: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri) if "://" in self.uri else None
        if parts is not None and ("@" in parts.netloc or parts.query):
            raise InputError(
                f"the address of Milvus ({parts.scheme}://...@{parts.hostname}) holds more than host and port; put the "
                f"token, or user:password, into the environment variable {TOKEN_VARIABLE}"
            )
        name = self.collection
        if not (name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit() and len(name) < 256):
            raise InputError(f"the collection '{name}' has no name that Milvus takes: letters, digits and _ only")

    @property
    def is_file(self) -> bool:
        """Whether it is a file of milvus-lite."""
        return "://" not in self.uri

    def __str__(self) -> str:
        """Return both, for a message."""
        return f"{self.uri} ({self.collection})"


def connect(address: Address) -> MilvusClient:
    """Return a client; the token is that of the environment variable IONBED_MILVUS_TOKEN.

    Raises
    ------
    InputError
        pymilvus is not installed, or Milvus cannot be reached.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise InputError("pymilvus is not installed; pip install 'ionbed[milvus]'") from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs tracebacks of what is told in one line here
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
    token = os.environ.get(TOKEN_VARIABLE, "")
    client: MilvusClient = ask(address, MilvusClient, uri=address.uri, token=token)
    return client


def ask(address: Address, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call Milvus, again where the reason that it did not work may have gone by then."""
    import grpc
    from pymilvus.exceptions import MilvusException

    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call(*arguments, **options, timeout=_TIMEOUT)
        except (MilvusException, grpc.RpcError) as error:
            if attempt == ATTEMPTS or not _is_transient(error):
                raise _told(address, error) from None
            time.sleep(wait)
            wait *= 2
    raise AssertionError("the last attempt returns or raises")


def _is_transient(error: Any) -> bool:
    import grpc

    code = error.code() if callable(getattr(error, "code", None)) else getattr(error, "code", None)
    return bool(
        getattr(error, "retriable", False)
        or (code in _TRANSIENT_CODES and type(error).__name__ == "MilvusException")
        or code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    )


def _told(address: Address, error: Any) -> InputError:
    reason = " ".join(str(getattr(error, "message", "") or error).split())[:200]
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        reason = reason.replace(token, "...")
    if address.is_file and "Open local milvus failed" in reason:
        return InputError(
            f"{address.uri}: cannot be opened ({reason}); its folder must be there, and no other process may have it "
            "open: a file of milvus-lite has one at a time, a server any number"
        )
    if getattr(error, "code", None) == 2:
        return InputError(f"{address.uri}: Milvus cannot be reached ({reason}); is it running, and the address right?")
    return InputError(f"{address}: Milvus could not do it ({reason}); mend that and run again")
