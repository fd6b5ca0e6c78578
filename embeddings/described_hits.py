"""A search whose hits are described: what is known of the library spectra, and what query and hit tell together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..spectra.spectrum import Spectrum
from .annotation import ANNOTATED_COLUMNS, SAME_ION_PPM, Annotations, annotate, confidence, warnings_of
from .calibration import COLUMNS, DEPTH, candidates_told, curve_of, probabilities
from .filters import Filters
from .hits import EmbeddedQueries, Hits, ScoreName
from .index import Index
from .milvus_index import MilvusIndex
from .windows import windows_in

METADATA = (
    "name", "formula", "smiles", "inchikey", "adduct", "collision_energy", "instrument_type", "license", "predicted",
)  # fmt: skip
"""Columns of the library that a hit shows as they are."""

_TAKEN = tuple(dict.fromkeys(("spectrum_id", *METADATA, *ANNOTATED_COLUMNS, *COLUMNS)))


@dataclass(frozen=True, slots=True)
class DescribedHits:
    """The hits of one query.

    Attributes
    ----------
    hits : list of dict
        Best first; values by the names of `ionbed.embeddings.search.HitRow`.
    warnings : str
        In what the query lies outside of what the model was trained on.
    note : str
        Why there is no hit; empty where there is one.
    """

    hits: list[dict[str, Any]]
    warnings: str
    note: str


class DescribedSearch:
    """Searches spectra in an index and describes their hits, those of many queries together.

    Parameters
    ----------
    index : Index or MilvusIndex
    k : int
        Hits per query, at most.
    precursor_ppm, precursor_da : float or None
        See `Index.search`.
    score : 'cosine' or 'fused'
    filters : Filters or None
    """

    def __init__(
        self,
        index: Index | MilvusIndex,
        k: int,
        precursor_ppm: float | None,
        precursor_da: float | None,
        score: ScoreName,
        filters: Filters | None,
    ) -> None:
        self._index, self._k, self._score, self._filters = index, k, score, filters
        self._ppm, self._da = (None if precursor_da is not None else precursor_ppm), precursor_da
        self._curve = curve_of(index.manifest, score, self._is_window)
        self._whys: dict[int, str] = {}
        self._is_flattered = self._curve is not None and self._curve.record.get("laboratories") == "any"

    def __call__(self, spectra: list[Spectrum]) -> Iterator[DescribedHits]:
        """Yield what was found for each of some spectra."""
        return self.of_embedded(self.embed(spectra))

    def embed(self, spectra: list[Spectrum]) -> EmbeddedQueries:
        """Embed spectra, for `of_embedded`."""
        return self._index.embed(spectra)

    def of_embedded(self, queries: EmbeddedQueries) -> Iterator[DescribedHits]:
        """Yield what was found for each of some queries that are embedded already, with their peaks."""
        # A probability is of the lead over the next molecule, too, which may not be among few hits.
        depth = self._k if self._curve is None else max(self._k, DEPTH)
        hits = self._index.search(queries, depth, self._ppm, self._score, precursor_da=self._da, filters=self._filters)
        assert queries.columns is not None, "Index.embed keeps the peaks"
        warnings = warnings_of(queries.columns, self._index.model)
        of_query = self._described(queries, hits)
        for number in range(len(hits)):
            note = "" if of_query[number] else self._why_none(queries, number, int(hits.num_in_window[number]))
            yield DescribedHits(of_query[number], warnings[number], note)

    def _described(self, queries: EmbeddedQueries, hits: Hits) -> list[list[dict[str, Any]]]:
        found = np.unique(hits.rows[hits.rows >= 0])
        of_query: list[list[dict[str, Any]]] = [[] for _ in range(len(hits))]
        if not len(found):
            return of_query
        assert queries.columns is not None, "Index.embed keeps the peaks"
        table = hits.library.take(found, _TAKEN)
        probability = np.full(hits.rows.shape, np.nan)
        if self._curve is not None:
            num = candidates_told(hits.num_in_window, is_window=self._is_window)
            probability = probabilities(self._curve, queries, hits, num, found, table, SAME_ION_PPM)
        is_hit = hits.rows >= 0
        is_hit[:, self._k :] = False
        query, place = np.nonzero(is_hit)
        of_hit = np.searchsorted(found, hits.rows[is_hit])
        told = annotate(queries.columns, query, table, of_hit, is_window=self._is_window)
        names = ("library_id", *METADATA)
        columns = [table[name].to_pylist() for name in ("spectrum_id", *METADATA)]
        shared = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        own = zip(
            query.tolist(), (place + 1).tolist(), hits.rows[is_hit].tolist(), hits.scores[is_hit].tolist(),
            _known(hits.precursor_error_ppm[is_hit]), of_hit.tolist(), _known(probability[is_hit]), *_columns_of(told),
            strict=True,
        )  # fmt: skip
        for number, rank, row, score, error, taken, chance, matched, difference, formula, is_same, is_ion in own:
            known = shared[taken]
            of_query[number].append(
                {
                    "rank": rank,
                    "row": row,
                    "score": score,
                    "score_name": self._score,
                    "probability": chance,
                    "precursor_error_ppm": error,
                    "mass_difference": difference,
                    "difference_formula": formula,
                    "matched_peaks": matched,
                    "confidence": confidence(
                        is_same_mass=is_same,
                        is_same_ion=is_ion,
                        has_structure=bool(known["smiles"] or known["inchikey"]),
                        has_formula=bool(known["formula"]),
                        predicted=known["predicted"],
                        probability=chance,
                        is_flattered=self._is_flattered,
                        matched_peaks=matched,
                    ),
                    **known,
                }
            )
        return of_query

    @property
    def _is_window(self) -> bool:
        return self._ppm is not None or self._da is not None

    def _why_none(self, queries: EmbeddedQueries, number: int, num_in_window: int) -> str:
        """Return why a query has no hit."""
        where = ""
        if self._ppm is not None:
            where = f" within {self._ppm:g} ppm"
        elif self._da is not None:
            where = f" within {self._da:g} Da"
        if not num_in_window:
            return f"no library spectrum{where}"
        if self._is_window:
            return self._why_none_of(self._within(queries, number), where)
        # The rows of an open search are all of the library, the same for all queries of a polarity: millions, perhaps.
        polarity = int(queries.polarity[number])
        if polarity not in self._whys:
            self._whys[polarity] = self._why_none_of(self._within(queries, number), where)
        return self._whys[polarity]

    def _why_none_of(self, of_polarity: pa.Table, where: str) -> str:
        if not len(of_polarity):
            return f"every library spectrum{where} has the other polarity"
        if not self._filters:
            return f"none of {len(of_polarity):,} library spectra{where} was found by an approximate search"
        reason = self._filters.why_none(of_polarity)
        spectra = "1 library spectrum" if len(of_polarity) == 1 else f"{len(of_polarity):,} library spectra"
        return f"of {spectra}{where} {reason}"

    def _within(self, queries: EmbeddedQueries, number: int) -> pa.Table:
        """Return what the filters read of the live rows in a query's window that may be of its polarity."""
        names = (self._filters or Filters()).needs() or ("polarity",)
        if isinstance(self._index, MilvusIndex):
            precursor_mz, polarity = float(queries.precursor_mz[number]), int(queries.polarity[number])
            return self._index.store.within(precursor_mz, polarity, self._ppm, self._da, names)
        library = self._index.library
        windows = windows_in(library, queries.precursor_mz[[number]], self._ppm, self._da)
        if windows is None:
            rows = np.arange(self._index.num_rows)
        else:
            spans = zip(windows.start[:, 0], windows.stop[:, 0], strict=True)
            rows = np.concatenate([np.arange(start, stop) for start, stop in spans])
        rows = rows[self._index.live[rows] & (self._index.polarity[rows] * queries.polarity[number] != -1)]
        return library.take(rows, names)


def is_encoder_on_one_thread() -> bool:
    """Return whether PyTorch computes on one thread, and may search beside it: several wait for each other."""
    import torch

    return torch.get_num_threads() == 1


def _columns_of(told: Annotations) -> tuple[list[Any], ...]:
    return (
        told.matched_peaks.tolist(),
        _known(told.mass_difference),
        told.difference_formula,
        told.is_same_mass.tolist(),
        told.is_same_ion.tolist(),
    )


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
