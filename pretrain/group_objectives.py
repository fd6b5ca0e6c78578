"""The objectives that compare spectra: how many groups a batch has, and which process collates them."""

from __future__ import annotations

import logging

import numpy as np

from ..encoder.batching import FixedShapes, token_budget_batches
from ..encoder.collator import EncoderBatch
from ..encoder.configuration_ionbed import IonbedConfig
from ..errors import InputError
from .config import PretrainConfig
from .data import TrainingSpectra
from .groups import collate_group, group_rng, pack_groups
from .neighbours import NeighbourBatch, Neighbours, pairs_of_store
from .processes import process_state
from .retention_order import OrderBatch, RetentionOrder
from .store_runs import StoreRuns
from .views import Views

logger = logging.getLogger("ionbed")

_STREAMS = {"neighbours": 101, "retention_order": 102, "views": 103}
_MEASURED_GROUPS = 64

Source = Neighbours | RetentionOrder | Views


class GroupObjectives:
    """Groups of spectra, drawn for each batch of masked peaks and for validation.

    Parameters
    ----------
    config : PretrainConfig
        With at least one of the objectives on.
    spectra : TrainingSpectra
    num_tokens : int array
        Tokens of every row of the store.
    encoder : IonbedConfig

    Raises
    ------
    InputError
        The store has no runs or pairs, they are damaged, or there is nothing in them to compare; a group does not fit
        into a micro-batch.
    """

    def __init__(
        self, config: PretrainConfig, spectra: TrainingSpectra, num_tokens: np.ndarray, encoder: IonbedConfig
    ) -> None:
        self.config, self.spectra, self.num_tokens, self.encoder = config, spectra, num_tokens, encoder
        objectives = config.objectives
        most = objectives.group_spectra * (config.model.max_peaks + 1)
        if most > config.training.micro_batch_tokens:
            raise InputError(
                f"objectives.group_spectra: {objectives.group_spectra} spectra of up to {config.model.max_peaks + 1} "
                f"tokens are {most}; raise training.micro_batch_tokens from {config.training.micro_batch_tokens}"
            )
        self.runs: StoreRuns | None = None
        pairs: np.ndarray | None = None
        if objectives.needs_runs:
            self.runs, pairs = self._runs_and_pairs()
        self.held_out = np.zeros(len(num_tokens), bool)
        if self.runs:
            self.held_out = self.runs.held_out_rows & self.runs.allowed
        self.rows = spectra.rows[~self.held_out[spectra.rows]]
        self.trained = np.zeros(len(num_tokens), bool)
        self.trained[self.rows] = True
        self.sources = self._sources(pairs, held_out=False)
        self.group_tokens = {name: self._tokens_of_a_group(source, name) for name, source in self.sources.items()}
        self.validation = self._validation_sources(pairs)

    def _runs_and_pairs(self) -> tuple[StoreRuns, np.ndarray | None]:
        """Read the runs of the store, and its pairs where they are needed."""
        objectives, store, spectra = self.config.objectives, self.config.data.store, self.spectra
        try:
            runs = StoreRuns.read(store, spectra.store_manifest, spectra.rows, spectra.precursor_mz, self.num_tokens,
                                  objectives.validation_runs)  # fmt: skip
            return runs, pairs_of_store(store, spectra.store_manifest) if objectives.neighbours else None
        except InputError as error:
            names = [name for name in objectives.names if name != "views"]
            raise InputError(f"{error}; or set objectives.{' and objectives.'.join(names)} to 0") from None

    @property
    def share(self) -> float:
        """Share of the tokens of a step that all groups together take."""
        return self.config.objectives.share * len(self.sources)

    def validation_batches(self) -> list[np.ndarray]:
        """Return rows of the runs for validation, as many as there are to be; groups are drawn for each array."""
        rows = np.flatnonzero(self.held_out) if self.validation else np.empty(0, np.int64)
        most = min(self.config.data.validation_spectra, len(rows))
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        return [rows[b] for b in token_budget_batches(self.num_tokens[rows], self.config.training.batch_tokens)]

    def are_held_out(self, rows: np.ndarray) -> bool:
        """Return whether a batch is one of `validation_batches`."""
        return bool(len(rows) and self.held_out[rows[0]])

    def micro_batches(
        self, rows: np.ndarray, epoch: int, process: int, processes: int, shapes: FixedShapes | None
    ) -> list[NeighbourBatch | OrderBatch]:
        """Collate this process's groups of a batch: of training rows, or of rows for validation.

        Parameters
        ----------
        rows : int array
            Of the whole batch. Its lowest row and its tokens decide which groups it has, and how many.
        shapes : FixedShapes or None
            Those of a compiled model, to which micro-batches are filled up.
        """
        if not len(rows):
            return []
        training, objectives = self.config.training, self.config.objectives
        sources = self._sources_for(int(rows[0]))
        share = objectives.share / (1 - self.share)
        result: list[NeighbourBatch | OrderBatch] = []
        for name, source in sources.items():
            number = max(1, round(share * int(self.num_tokens[rows].sum()) / self.group_tokens[name]))
            groups = [
                source.draw(group_rng(training.seed, epoch, _STREAMS[name], rows, group))
                for group in range(process, number, processes)
            ]
            parts = pack_groups(groups, self.num_tokens, lambda n: self._most_spectra(n, shapes))
            result += [
                source.batch(part, self._collated(np.concatenate(part), source, epoch, shapes)) for part in parts
            ]
        return result

    def _sources_for(self, row: int) -> dict[str, Source]:
        """Return what groups are drawn from beside a batch that holds ``row``."""
        if self.trained[row]:
            return self.sources
        # Views are validated on the validation fold, what needs runs on the runs held out.
        return {name: source for name, source in self.validation.items() if (name == "views") != self.held_out[row]}

    def _most_spectra(self, longest: int, shapes: FixedShapes | None) -> int:
        return shapes.shape_of(longest)[0] if shapes else self.config.training.micro_batch_tokens // longest

    def _collated(self, rows: np.ndarray, source: Source, epoch: int, shapes: FixedShapes | None) -> EncoderBatch:
        config = self.config
        jitter = config.objectives.intensity_jitter if isinstance(source, Views) else 0.0
        batch = collate_group(
            self.spectra.columns(rows), source.draws(rows), self.encoder, config.objectives, config.masking,
            config.training.seed, epoch, intensity_jitter=jitter,
        )  # fmt: skip
        if shapes is None:
            return batch
        size, length = shapes.shape_of(int(self.num_tokens[rows].max()))
        return batch.padded_to(size * -(-len(rows) // size), length)  # a group may be larger than a micro-batch is

    def _sources(self, pairs: np.ndarray | None, *, held_out: bool) -> dict[str, Source]:
        sources: dict[str, Source] = {}
        if self.config.objectives.views:
            spectra = self.spectra
            rows = spectra.validation_rows if held_out else self.rows
            sources["views"] = Views(rows, spectra.precursor_mz, spectra.polarity, self.num_tokens,
                                     self.config.objectives)  # fmt: skip
        if self.runs is None:
            return sources
        if pairs is not None:
            sources["neighbours"] = Neighbours(self.runs, pairs, self.config.objectives, held_out=held_out)
        if self.config.objectives.retention_order:
            sources["retention_order"] = RetentionOrder(self.runs, self.config.objectives, held_out=held_out)
        return sources

    def _tokens_of_a_group(self, source: Source, name: str) -> float:
        """Return the mean over some groups; raises `InputError` if there are none."""
        groups = [source.draw(np.random.default_rng([_STREAMS[name], number])) for number in range(_MEASURED_GROUPS)]
        return float(np.mean([self.num_tokens[group].sum() for group in groups]))

    def _validation_sources(self, pairs: np.ndarray | None) -> dict[str, Source]:
        """Return the sources of groups for validation, without objectives that the runs held out have nothing for."""
        result = {}
        for name, source in self._sources(pairs, held_out=True).items():
            try:
                self._tokens_of_a_group(source, name)
            except InputError:
                if name != "views" and self.config.objectives.validation_runs and process_state().is_main_process:
                    logger.warning("objectives.%s: no validation, too little is in the runs held out", name)
                continue
            result[name] = source
        return result
