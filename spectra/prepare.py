"""``ionbed prepare``: from files of spectra to a store of harmonised, cleaned, graded, deduplicated spectra."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..artifacts import (
    MANIFEST,
    atomic_folder,
    describe_input,
    read_manifest,
    refuse_existing,
    refuse_input_as_output,
    sha256_of_file,
    sha256_of_json,
    write_manifest,
)
from ..errors import InputError
from ..progress import counted, progress
from .cleaning import CleaningOptions
from .curation_report import write_report
from .dataset_card import write_dataset_card
from .grades import GradeOptions
from .label_table import read_record_labels
from .near_duplicates import NearDuplicateOptions
from .pairs import PairOptions
from .precursor import MetadataOptions
from .preparation.assemble import kept_of_parts, list_dropped, plan_shards, write_shards
from .preparation.curation import FILES_FILE, Curation
from .preparation.parts import Parts, is_made, make_part, read_summary
from .preparation.runs import write_pairs
from .preparation.shuffle import Decisions, Round, drop_by_grade, shuffle
from .preparation.units import InputFile, Unit, cut_into_units, input_files, resume_key
from .preparation.workers import Workers, open_workers
from .readers import read_blocks, warn_of_skipped

logger = logging.getLogger("ionbed")

DROPPED_FILE = "dropped.tsv"
"""Lists every record that was dropped: source_file, position, native_id, reason, detail."""

_SCRATCH = ".scratch-{}"


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` keeps.

    Attributes
    ----------
    ms_levels : tuple of int
        The MS levels that are kept; a record that does not state its level is taken.
    cleaning : CleaningOptions
    metadata : MetadataOptions
    grades : GradeOptions
    near_duplicates : NearDuplicateOptions
    pairs : PairOptions
    licenses : tuple of str or None
        The licences that are kept, as the records write them (``CC BY``, ``CC0``); a version number (``4.0``), case,
        blanks and hyphens do not matter. A record without a licence is then dropped. None keeps all.
    labels : Path or None
        A table (CSV or TSV) with ids and structures, laid over the records of these ids
        (`ionbed.spectra.label_table.read_record_labels`).
    rows_per_shard : int
        Spectra in one Parquet file, at most. The number of files is 1, 2, 4, 8, 16, 32 or a multiple of 64, so that
        they divide among the processes of a training run.
    """

    ms_levels: tuple[int, ...] = (2,)
    cleaning: CleaningOptions = field(default_factory=CleaningOptions)
    metadata: MetadataOptions = field(default_factory=MetadataOptions)
    grades: GradeOptions = field(default_factory=GradeOptions)
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)
    pairs: PairOptions = field(default_factory=PairOptions)
    licenses: tuple[str, ...] | None = None
    labels: Path | None = None
    rows_per_shard: int = 65_536

    def __post_init__(self) -> None:
        if not self.ms_levels or min(self.ms_levels) < 1:
            raise ValueError(f"ms_levels is {self.ms_levels}; it must name at least one level, each 1 or more")
        if self.licenses is not None and not self.licenses:
            raise ValueError("licenses is an empty list, which would drop every spectrum; name some, or null for all")
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {self.rows_per_shard}; it must be 1 or more")


def prepare(
    inputs: Sequence[Path],
    out: Path,
    *,
    options: PrepareOptions = PrepareOptions(),
    workers: int | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Read spectra, bring them to one form, drop what is bad or there already, and write a store.

    The store (`ionbed.spectra.store.Store`) appears whole or not at all, and its bytes depend on the inputs and the
    options only, not on who worked. A run that was stopped is continued by the same call: what it had read is kept in a
    hidden folder beside ``out``. Memory does not grow with the input. With more than one worker, processes are started
    by ``spawn``: a script that calls this needs the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    inputs : sequence of paths
        Files, folders or archives; see `ionbed.spectra.readers`.
    out : path
        The folder to write.
    workers : int, optional
        Processes; by default as many as this process may use cores. On a cluster, Dask workers.
    cluster : str, optional
        'local', 'slurm', or the address of a Dask scheduler; see `ionbed.spectra.preparation.workers.open_workers`.
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    dict
        The manifest. Of its counts, ``read`` = ``kept`` + the sum of ``dropped`` (by reason); ``repaired``, ``flagged``
        and ``grades`` are of kept spectra.

    Raises
    ------
    InputError
        An input is missing, empty or of no known format; no spectrum can be used; ``out`` exists, or lies in an input;
        there is no such cluster; the disk is full.
    RuntimeError
        A worker process died.
    """
    from .. import __version__

    inputs, out = [Path(path) for path in inputs], Path(out)
    _check(inputs, out, workers)
    refuse_existing(out, overwrite=overwrite)
    for path in inputs:
        read_blocks(path)  # a missing or useless input is told at once
    files = input_files(inputs)
    if options.labels is not None:
        refuse_input_as_output(out, options.labels)
        read_record_labels(options.labels)
    key = resume_key(files, _plain(options), __version__)
    with _told_of_full_disk(out), atomic_folder(out, overwrite=overwrite, resume_key=key) as folder:
        if not (folder / MANIFEST).exists():  # else all was done but the last move
            # a task that outlives a killed run, as on a cluster, finds no folder of a run on something else
            scratch = folder / _SCRATCH.format(sha256_of_json(key)[:16])
            with open_workers(workers, cluster, resumable=True) as hands:
                write_manifest(folder, _prepare(inputs, files, folder, scratch, options, hands))
        for scratch in folder.glob(_SCRATCH.format("*")):
            shutil.rmtree(scratch)
    return read_manifest(out, made_by="prepare")


@contextmanager
def _told_of_full_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"{out}: the disk is full; make room and run again: what is done is kept") from error


def _prepare(
    inputs: Sequence[Path],
    files: Sequence[InputFile],
    folder: Path,
    scratch: Path,
    options: PrepareOptions,
    workers: Workers,
) -> dict[str, Any]:
    scratch.mkdir(exist_ok=True)
    parts = _make_parts(inputs, files, scratch, options, workers)
    labels = _labels_used(parts, options)
    curation = Curation(parts, options.grades)

    decisions = _decide(parts, options, workers)
    kept = kept_of_parts(parts, decisions)
    for counts in list_dropped(workers, parts, decisions, folder / DROPPED_FILE):
        curation.add_decisions(counts)
    if not kept.sum():
        shutil.rmtree(scratch)
        (folder / DROPPED_FILE).unlink()
        raise InputError(_nothing_kept(inputs, curation.counts()))
    names = shuffle(workers, parts, Round("names", "", "name_key"), decisions)
    shards, sources = [], []
    with progress("prepare: write", int(kept.sum()), unit="spectra") as advance:
        for written in write_shards(
            workers, parts, decisions, names, plan_shards(kept, options.rows_per_shard), folder
        ):
            curation.add_shard(written)
            shards.append(written["entry"])
            sources += written["sources"]
            advance(written["entry"]["spectra"])
    curation.write_files(folder / FILES_FILE)
    pairs = write_pairs(workers, folder, shards, sources, options.pairs)
    counts = curation.counts()
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == sum(shard["spectra"] for shard in shards)
    write_report(
        folder,
        {
            "counts": counts,
            "files": list(curation.files()),
            "histograms": curation.histograms,
            "near_duplicates": asdict(options.near_duplicates),
        },
    )
    write_dataset_card(folder, counts)
    described = [describe_input(path) for path in inputs]
    if input_files(inputs) != list(files):
        raise InputError("prepare: an input was changed while it was read; run again when nothing writes to the inputs")
    return {
        "command": "prepare",
        "inputs": described,
        "options": _plain(options),
        "counts": counts,
        **({"labels": labels} if labels else {}),
        "shards": shards,
        "pairs": pairs,
    }


def _make_parts(
    inputs: Sequence[Path], files: Sequence[InputFile], scratch: Path, options: PrepareOptions, workers: Workers
) -> Parts:
    """Make the parts that are not there yet; return all."""
    skipped: list[str] = []
    num_units = num_made = 0

    def missing() -> Iterator[Unit]:
        nonlocal num_units, num_made
        for unit in cut_into_units(files, skipped):
            num_units = unit.number + 1
            if is_made(scratch, unit.number):
                num_made += 1
            else:
                yield unit

    with progress("prepare: read", None, unit="records") as advance:
        for num_read in workers.map(partial(make_part, folder=scratch, options=options), missing()):
            advance(num_read, f"{counted(num_made, 'parts')} there already" if num_made else "")
    rows = []
    for number in range(num_units):
        summary = read_summary(scratch, number)
        rows.append(summary["rows"])
        skipped += summary["skipped"]
    if skipped:
        warn_of_skipped(", ".join(map(str, inputs[:3])), skipped)
    return Parts(scratch, tuple(rows))


def _labels_used(parts: Parts, options: PrepareOptions) -> dict[str, Any]:
    """Return how many ids of the user's table of labels were found among the records; empty without a table.

    Raises
    ------
    InputError
        None was found, or one is that of records of several files.
    """
    if options.labels is None:
        return {}
    labels = read_record_labels(options.labels)
    used: dict[int, str] = {}
    for number in range(len(parts.num_rows)):
        for row, file in parts.summary(number)["labelled"]:
            if used.setdefault(row, file) != file:
                name = next(name for name, (of, _) in labels.fields.items() if of == row)
                raise InputError(
                    f"{labels.path}: records of several files have the id {name!r} (of {used[row]} and {file}, say); "
                    "prepare the files one by one, each with a table of its own, then their stores together"
                )
    missing = [name for name, (row, _) in labels.fields.items() if row not in used]
    if not used:
        raise InputError(
            f"{labels.path}: none of its {len(labels):,} ids is that of a record ({missing[0]!r}, for example); ids "
            "are those of the file of spectra, in an MGF the TITLE, or FILE.mgf#3 for its third record"
        )
    if labels.ignored:
        logger.warning("%s: says nothing of records in the columns %s", labels.path, ", ".join(labels.ignored))
    if missing:
        logger.warning("%s: %s of %s ids match no record (%s, for example)", labels.path, f"{len(missing):,}",
                       f"{len(labels):,}", missing[0])  # fmt: skip
    return {**describe_input(labels.path), "ids": len(labels), "matched": len(labels) - len(missing)}


def _decide(parts: Parts, options: PrepareOptions, workers: Workers) -> Decisions:
    """Return which rows go: below the least grade, then copies, then near-duplicates, table by table."""
    decisions = Decisions()
    decisions = decisions.and_then("grade", drop_by_grade(workers, parts, options.grades))
    rounds = [Round("copies", "duplicate", "measurement_key")]
    if options.near_duplicates.keep is not None:
        rounds += [
            Round(f"near-{table}", "near-duplicate", "buckets", table, options.near_duplicates)
            for table in range(options.near_duplicates.tables)
        ]
    with progress("prepare: compare", len(rounds), unit="rounds") as advance:
        for this in rounds:
            decisions = decisions.and_then(this.reason, shuffle(workers, parts, this, decisions))
            advance(1)
    return decisions


def _check(inputs: Sequence[Path], out: Path, workers: int | None) -> None:
    if not inputs:
        raise InputError("prepare: no input is given; name files, folders or archives of spectra")
    if workers is not None and workers < 1:
        raise InputError(f"prepare: the number of workers is {workers}; it must be 1 or more")
    refuse_input_as_output(out, *inputs)


def _nothing_kept(inputs: Sequence[Path], counts: dict[str, Any]) -> str:
    names = ", ".join(map(str, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    if not counts["read"]:
        return f"{names}: holds no spectra; nothing was written"
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts["dropped"].items())
    return f"{names}: none of {counted(counts['read'], 'records')} can be used ({reasons}); nothing was written"


def _plain(options: PrepareOptions) -> dict[str, Any]:
    tree = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
    del tree["labels"]  # told by its content: what it is called changes nothing
    return tree if options.labels is None else {**tree, "labels": sha256_of_file(options.labels)}
