"""Uploading a model folder to a Hugging Face hub, once it is whole, has a card, and its data's licences allow it."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

from ..encoder.loading import load_model
from ..encoder.modeling_ionbed import IonbedModel
from ..encoder.remote_code import MODULE
from ..errors import InputError
from ..finetune.labelled.model import HEAD, HEAD_WEIGHTS
from ..pretrain.card import CARD, PLACE, card_metadata
from ..pretrain.licenses import model_license
from ..pretrain.sources import licenses_of
from .card_file import WEIGHTS, run_manifest

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

logger = logging.getLogger("ionbed")

FILES: Final = (
    CARD, "config.json", WEIGHTS, f"{MODULE}.py", HEAD, HEAD_WEIGHTS, "LICENSE", "LICENSE.md", "LICENSE.txt",
)  # fmt: skip
"""What is uploaded of a model folder, where it is there."""

ALLOW: Final = "--allow-restricted"


LONGEST_NAME: Final = 96


class UploadError(RuntimeError):
    """The hub could not be reached, or did not take what was sent; the same command may work another time."""


@dataclass(frozen=True)
class Push:
    """What was, or would be, uploaded.

    Attributes
    ----------
    repository : str
        ``owner/name``.
    files : dict of str to int
        Bytes of each file.
    license : str
        As the card names it.
    url : str or None
        Of the commit; None where nothing was sent.
    """

    repository: str
    files: dict[str, int]
    license: str
    url: str | None


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    allow_restricted: bool = False,
    dry_run: bool = False,
) -> Push:
    """Upload a model folder; files that the hub has already are not sent again.

    Parameters
    ----------
    repository : str
        ``owner/name``; made where there is none.
    private : bool
        Only the owner may see it.
    revision : str, optional
        Branch, made where there is none; ``main`` where None.
    message : str, optional
        Of the commit.
    allow_restricted : bool
        Go on where the training data forbid commercial use or derivatives, where their licences are not known, or where
        the card names another licence than follows from them.
    dry_run : bool
        Check all that can be checked without the hub, and send nothing.

    Raises
    ------
    InputError
        The folder, its card or a licence will not do; nobody is logged in, or the hub refuses the user.
    UploadError
        The hub cannot be reached, or something failed there.
    """
    folder = Path(folder)
    _check_name(repository)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a model folder, as 'ionbed pretrain' writes it")
    model = load_model(folder)
    if run_manifest(folder) is None:
        logger.info("%s: no manifest of a run beside it; its weights are compared with none", folder)
    license_ = _checked_license(folder, model, allow_restricted=allow_restricted)
    files = {name: (folder / name).stat().st_size for name in FILES if (folder / name).is_file()}
    if left_out := sorted(path.name for path in folder.iterdir() if path.name not in files):
        logger.info("%s: not uploaded: %s", folder, ", ".join(left_out))
    if dry_run:
        return Push(repository, files, license_, None)
    summary = (
        message or f"{(model.config.training or [{}])[-1].get('command', 'model')}, hash {model.model_hash()[:12]}"
    )
    url = _upload(folder, list(files), repository, private=private, revision=revision, message=summary)
    return Push(repository, files, license_, url)


def _check_name(repository: str) -> None:
    if (
        not re.fullmatch(r"(?!.*(?:--|\.\.))\w[\w.-]*/\w[\w.-]*", repository, re.ASCII)
        or len(repository) > LONGEST_NAME
    ):
        raise InputError(
            f"{repository!r} is no repository; it must read owner/name, of letters, digits, '-', '_' and '.', "
            f"{LONGEST_NAME} at most"
        )


def _checked_license(folder: Path, model: IonbedModel, *, allow_restricted: bool) -> str:
    """Return the licence that the card names, if there is a card of this model and the training data agree."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder}: has no {CARD}; write it by 'ionbed card {folder}'")
    card = path.read_text(encoding="utf-8")
    metadata = card_metadata(card)
    written = re.search(r"Model hash `([0-9a-f]+)`", card)
    if written and written[1] != model.model_hash():
        raise InputError(
            f"{path}: is the card of another model (hash {written[1][:12]}); write this one's by 'ionbed card'"
        )
    named = str(metadata.get("license") or "")
    if not named:
        raise InputError(f"{path}: its metadata name no 'license'; add it, or write the card anew by 'ionbed card'")
    follows = model_license(licenses_of(model.config.training))
    if allow_restricted:
        return named
    if follows.restricted:
        raise InputError(
            f"{folder}: was trained on data that are non-commercial, without derivatives, or of unknown licence "
            f"({', '.join(follows.restricted)}); pass {ALLOW} if you may share the weights"
        )
    if named != follows.identifier:
        raise InputError(
            f"{path}: names the licence {named}, but {follows.reason} ({follows.identifier}); mend it, or pass {ALLOW}"
        )
    return named


def _upload(
    folder: Path, files: list[str], repository: str, *, private: bool, revision: str | None, message: str
) -> str:
    from huggingface_hub import HfApi, get_token

    from .. import __version__

    if get_token() is None:
        raise InputError("nobody is logged in to the hub; run 'hf auth login', or set HF_TOKEN")
    api = HfApi(library_name="ionbed", library_version=__version__)
    with _hub_errors(repository, api.endpoint), _bars_on_a_terminal():
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(f"{repository}: is there and public; make it private on the hub, or leave out --private")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        with TemporaryDirectory() as scratch:
            for name in files:
                (Path(scratch) / name).symlink_to((folder / name).resolve())
            card = (folder / CARD).read_text(encoding="utf-8").replace(PLACE, repository)
            (Path(scratch) / CARD).unlink()
            (Path(scratch) / CARD).write_text(card, encoding="utf-8")
            commit = api.upload_folder(
                repo_id=repository, folder_path=scratch, revision=revision, commit_message=message
            )
    return str(commit.commit_url)


@contextmanager
def _bars_on_a_terminal() -> Iterator[None]:
    """Keep the hub's library from drawing bars where nobody looks."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()


@contextmanager
def _hub_errors(repository: str, endpoint: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line each."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The two bases of the library's own error are the errors of its HTTP client and of the system.
    connection_errors = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    expected: tuple[type[Exception], ...] = (*connection_errors, RuntimeError, ValueError)
    try:
        yield
    except InputError:
        raise
    except OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set, nothing can be uploaded; unset it") from None
    except expected as error:
        answer = _answer(error)
        if answer is None:
            if "xet" in str(error).lower():
                raise UploadError(
                    f"{endpoint}: an upload by its Xet protocol failed ({_short(error)}); run the command again, with "
                    "HF_HUB_DISABLE_XET=1 where this hub does not speak it"
                ) from error
            if isinstance(error, connection_errors):
                raise UploadError(
                    f"{endpoint} cannot be reached ({_short(error)}); run the command again when it can"
                ) from error
            raise UploadError(f"{repository}: the upload failed ({_short(error)})") from error
        status, said = answer.response.status_code, _short(answer.server_message or answer)
        refusals = {
            401: f"the hub does not accept this login ({said}); run 'hf auth login', or set HF_TOKEN",
            403: f"this login may not write there ({said}); use a token that may, or another owner",
            404: "is not there for this login; check the name",
            409: f"was changed by another at the same time ({said}); look at it, then run the command again",
        }
        if status in refusals:
            raise InputError(f"{repository}: {refusals[status]}") from None
        raise UploadError(
            f"{repository}: the hub answers {status} ({said}); run the command again, files that arrived are kept there"
        ) from error


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the hub's answer behind an error."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]
