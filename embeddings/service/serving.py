"""Run the service until it is told to end: what ``ionbed serve`` does."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError
from ...progress import counted
from ..kinds import open_index
from ..milvus_index import MilvusIndex
from .callers import allowed_names
from .settings import ServiceLimits, ServiceSettings
from .usi import GNPS_RESOLVER

logger = logging.getLogger("ionbed")

KEY_VARIABLE = "IONBED_API_KEY"
KEEP_ALIVE_SECONDS = 75
"""For which a connection without a request is kept: longer than clients and proxies keep theirs, or else they send into
one that is being closed."""
OWN_ADDRESSES = ("127.0.0.1", "::1", "localhost")


def run(
    index: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    usi: str | None = None,
    allowed_hosts: Sequence[str] = (),
    limits: ServiceLimits | None = None,
    access_log: bool = True,
) -> None:
    """Serve an index; returns once a signal has ended it and the last request is answered.

    Parameters
    ----------
    index : path
    host, port
        Where to listen; port 0 for any that is free.
    api_key_file : path, optional
        Holds the key that requests must carry; else the variable `KEY_VARIABLE` does, if it is set.
    usi : str, optional
        Address of the service that gives the spectrum of a USI, with ``{usi}`` in it; ``gnps`` for that of GNPS.
    allowed_hosts : sequence of str
        Names by which it may be called, besides ``host``, the name of this machine, localhost and addresses; '*' for
        any.
    limits : ServiceLimits, optional
    access_log : bool
        Log a line for each request, without what was asked.

    Raises
    ------
    InputError
        The index cannot be opened, a setting is none, or the address is taken.
    """
    import uvicorn

    from .app import create_app
    from .searching import warm_up

    settings = ServiceSettings(
        limits=limits or ServiceLimits(),
        api_key=read_key(api_key_file),
        usi_resolver=GNPS_RESOLVER if usi == "gnps" else usi,
        allowed_hosts=own_names(host, allowed_hosts),
    )
    opened = open_index(index.absolute())  # so that messages name it by what clients can be spared
    if isinstance(opened, MilvusIndex):
        raise InputError(f"{index}: has its vectors in Milvus, which is not served yet; search it with 'ionbed search'")
    logging.getLogger("ionbed.access").setLevel(logging.NOTSET if access_log else logging.WARNING)
    config = uvicorn.Config(
        create_app(opened, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on them
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # What is being answered is finished, for as long as a request may take; no longer.
        timeout_graceful_shutdown=int(settings.limits.seconds) + 1,
    )
    with _listening(host, port) as listener:
        where = f"[{host}]" if ":" in host else host
        logger.info("http://%s:%d  %s: %s", where, listener.getsockname()[1], index, counted(len(opened), "rows"))
        if settings.api_key is None and host not in OWN_ADDRESSES:
            logger.warning("anybody who reaches %s may search; --api-key-file asks for a key", host)
        warm_up(opened)  # what is wrong with its model is told here, in one line
        del opened  # once it is replaced, what was removed of it is to leave the disk
        server = uvicorn.Server(config)
        with _ended_by_signals():
            server.run(sockets=[listener])
    if not server.started:
        raise RuntimeError("the service could not be started; the lines above say why")
    logger.info("%s: no longer served", index)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let the end by a signal be an end like any other: uvicorn raises it once more when all is finished."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def own_names(host: str, further: Sequence[str]) -> frozenset[str] | None:
    """Return the names by which a service that listens at ``host`` may be called; None if any will do.

    Raises
    ------
    InputError
        One of the further ones is no name.
    """
    given = allowed_names(further)
    named = (name.lower().rstrip(".") for name in (host, socket.gethostname()))
    return None if given is None else given | frozenset(named)


def read_key(file: Path | None) -> str | None:
    """Return the API key of a file, else of the environment, else None.

    Raises
    ------
    InputError
        The file cannot be read or is empty.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); name a file that holds the API key") from None
    if not key:
        raise InputError(f"{file}: is empty; write the API key into it")
    return key


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that an address that is taken is known before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot be listened at ({error.strerror}); choose another --port") from None
    return listener
