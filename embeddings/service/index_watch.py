"""Looks whether others have changed the index that is served, and puts the new state in the place of the old one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from anyio import to_thread

from ...artifacts import MANIFEST
from ...errors import InputError
from ..index_folder import read_index_manifest
from .failures import RequestError
from .index_state import IndexState
from .metrics import Metrics
from .searching import AnyIndex

logger = logging.getLogger("ionbed")

LOOK_SECONDS = 1.0
"""Between two looks at the manifest."""
TRY_AGAIN_SECONDS = 30.0
"""Until a state that could not be opened is tried again although its manifest is the same: a file may have been put
back, or memory be free."""

Signature = tuple[int, int, int] | None


class IndexWatch:
    """The state of the index that new requests get.

    A commit (`ionbed index append`, ``delete``, ``compact``, ``calibrate``) or a new build replaces the manifest. The
    index is then opened anew beside the old one, with the model that is loaded already; requests and jobs that have
    begun keep the old one. A new state that cannot be opened, or is of another model, is not served: the old one is,
    and the log, /health/ready and the metrics say so.

    Parameters
    ----------
    index : Index or StructureIndex
    metrics : Metrics
    try_out : callable
        Searches a new state for the first time.

    Attributes
    ----------
    state : IndexState
    error : str or None
        Why what lies on the disk is not what is served.
    """

    def __init__(
        self, index: AnyIndex, metrics: Metrics, try_out: Callable[[IndexState], Awaitable[object]] | None = None
    ) -> None:
        self.state = IndexState(index)
        self.error: str | None = None
        self._metrics, self._try_out = metrics, try_out
        self._seen: Signature = None
        self._tried = -TRY_AGAIN_SECONDS
        self._tell()

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while self.state.index.folder is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                logger.exception("the index could not be looked at")

    async def look(self) -> bool:
        """Look once; return whether there is a new state."""
        folder = self.state.index.folder
        if folder is None:
            return False
        seen = await to_thread.run_sync(_signature, folder)
        if seen == self._seen and (self.error is None or time.monotonic() - self._tried < TRY_AGAIN_SECONDS):
            return False
        self._tried = time.monotonic()
        try:
            newer = await to_thread.run_sync(self._opened, folder)
            if newer is not None and self._try_out is not None:
                await self._try_out(newer)
        except RequestError as error:
            if error.status_code != 503:  # else too much waits for the model; at the next look perhaps not
                self._refuse(seen, f"{folder}: cannot be searched ({error.detail})")
            return False
        except (InputError, OSError) as error:
            self._refuse(seen, str(error))
            return False
        except Exception as error:
            logger.exception("the changed index cannot be searched")
            self._refuse(seen, f"{folder}: cannot be searched ({type(error).__name__})")
            return False
        self._seen, self.error = seen, None
        if newer is not None:
            self.state = newer
            logger.info("%s: was changed; %s rows are served now", folder, f"{len(newer.index):,}")
        self._tell(is_new=newer is not None)
        return newer is not None

    def _opened(self, folder: Path) -> IndexState | None:
        """Return the state on the disk, None if it is the one that is served."""
        index = self.state.index
        if read_index_manifest(folder) == index.manifest:
            return None
        newer = IndexState(type(index).open(folder, index.model))
        newer.index.score_name()  # loads what the score needs, here and not in the thread of the model
        return newer

    def _refuse(self, seen: Signature, error: str) -> None:
        if error != self.error:
            logger.error("%s; what was served before is served on", error)
        self._seen, self.error = seen, error
        self._tell()

    def _tell(self, *, is_new: bool = False) -> None:
        self._metrics.index(
            self.state.generation, len(self.state.index), is_new=is_new, is_outdated=self.error is not None
        )


def _signature(folder: Path) -> Signature:
    """Return what changes when a manifest is replaced; None where there is none."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
