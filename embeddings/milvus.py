"""A library in Milvus, past what one machine holds; through pymilvus, for a cluster as for a file of milvus-lite."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.store import SCHEMA
from . import milvus_rows as rows_of_milvus
from .hits import EmbeddedQueries, Hits
from .index_folder import check_search_options, checked_vectors
from .milvus_collection import (
    MilvusIndexKind,
    choose_kind,
    collection_schema,
    index_params,
    search_parameters,
)
from .milvus_connection import Address, ask, connect
from .milvus_rows import ID, both, of_filters, of_ids, of_polarity, table_of, vector_field, window
from .vector_store import refuse_unfit

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from .filters import Filters

CONSISTENCY: Final = "Strong"
"""A search sees every write that was acknowledged before it, by whichever client."""

ROWS_AT_ONCE = 500
"""Added in one request: 64 MB is the most that Milvus takes, and a spectrum of 512 peaks has some 6 kB."""
IDS_AT_ONCE = 500
QUERIES_AT_ONCE = 128
MOST_HITS = MOST_ROWS = 16_000  # of 16,384 that Milvus gives
SPARE = 8
"""Hits asked for beyond ``k``: Milvus's own scores are of single precision, or quantised, and are computed anew."""
CONNECTIONS = 8


class FoundRows:
    """The spectra that were ever found, numbered as they were found; what is asked of them is fetched then."""

    def __init__(self, store: MilvusStore) -> None:
        self._store = store
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []

    def number(self, name: str) -> int:
        """Return the number of a spectrum, a new one where it was not found before."""
        number = self._numbers.setdefault(name, len(self._ids))
        if number == len(self._ids):
            self._ids.append(name)
        return number

    def take(self, rows: np.ndarray, names: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return columns of rows, in the order asked for."""
        return self._store.rows([self._ids[row] for row in np.asarray(rows).tolist()], names)


class MilvusStore:
    """A `VectorStore` in a collection of Milvus.

    Make one with `create`, or `open` one that is there. The token, where the server wants one, is read from the
    environment variable IONBED_MILVUS_TOKEN and kept nowhere.

    Attributes
    ----------
    address : Address
    model_hash : str
    dim : int
    kind : str
        Of the index of the vectors.
    found : FoundRows
        What all searches found, by the numbers of rows that their hits have.
    """

    def __init__(
        self, client: MilvusClient, address: Address, model_hash: str, dim: int, kind: str, *, connections: int
    ) -> None:
        self.address, self.model_hash, self.dim, self.kind = address, model_hash, dim, kind
        self._client = client
        self._pool = ThreadPoolExecutor(connections)
        self.found = FoundRows(self)

    @classmethod
    def create(
        cls,
        address: Address,
        model_hash: str,
        dim: int,
        *,
        expected: int,
        kind: MilvusIndexKind | None = None,
        overwrite: bool = False,
    ) -> MilvusStore:
        """Make an empty collection.

        Parameters
        ----------
        address : Address
        model_hash : str
        dim : int
        expected : int
            Spectra that it will hold, by which the kind of index is chosen (`choose_kind`).
        kind : str, optional
            That kind, in place of the choice.
        overwrite : bool
            Drop a collection of that name.

        Raises
        ------
        InputError
            Milvus cannot be reached, or has a collection of that name (unless ``overwrite``).
        """
        kind = kind or choose_kind(expected)
        if kind not in get_args(MilvusIndexKind):
            raise InputError(f"the kind of index is '{kind}'; it must be one of {', '.join(get_args(MilvusIndexKind))}")
        client = connect(address)
        if ask(address, client.has_collection, address.collection):
            if not overwrite:
                client.close()
                raise InputError(f"{address}: is there already; pass --overwrite to replace it, or name another")
            ask(address, client.drop_collection, address.collection)
        schema, index = collection_schema(client, model_hash, dim), index_params(client, model_hash, kind)
        ask(
            address, client.create_collection, address.collection, schema=schema, index_params=index,
            consistency_level=CONSISTENCY,
        )  # fmt: skip
        return cls(client, address, model_hash, dim, kind, connections=_connections(address))

    @classmethod
    def open(cls, address: Address, model_hash: str) -> MilvusStore:
        """Open a collection that `create` made.

        Raises
        ------
        InputError
            Milvus cannot be reached, has no such collection, or its vectors are of another model.
        """
        if address.is_file and not os.path.exists(address.uri):
            raise InputError(f"{address.uri}: no such file; it should be one of milvus-lite that an index was built in")
        client = connect(address)
        if not ask(address, client.has_collection, address.collection):
            client.close()
            raise InputError(f"{address}: Milvus has no collection of that name; build the index again")
        fields = {
            entry["name"]: entry for entry in ask(address, client.describe_collection, address.collection)["fields"]
        }
        name = vector_field(model_hash)
        if name not in fields or not fields.keys() >= {*SCHEMA.names, *rows_of_milvus.KEYS}:
            client.close()
            others = [other.removeprefix("vector_") for other in fields if other.startswith("vector_")]
            what = f"are of the model {others[0][:12]}, not of {model_hash[:12]}" if others else "are not ionbed's"
            raise InputError(f"{address}: the vectors of the collection {what}; name another, or build the index again")
        kind = ask(address, client.describe_index, address.collection, name)["index_type"]
        ask(address, client.load_collection, address.collection)
        dim = int(fields[name]["params"]["dim"])
        return cls(client, address, model_hash, dim, kind, connections=_connections(address))

    def __len__(self) -> int:
        """Return the number of spectra."""
        return self._count("")

    def add(self, rows: pa.Table, vectors: np.ndarray) -> None:
        """See `VectorStore.add`; `ROWS_AT_ONCE` in a request, so that a failure leaves some of them added."""
        refuse_unfit(rows, vectors, self.dim)
        vectors = np.ascontiguousarray(vectors, np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            entities = rows_of_milvus.entities(rows[part], vectors[part], vector_field(self.model_hash))
            self._call("upsert", entities)

    def search(
        self,
        queries: EmbeddedQueries,
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        *,
        precursor_da: float | None = None,
        filters: Filters | None = None,
    ) -> Hits:
        """See `VectorStore.search`.

        Without a window as many queries go with a request as have the same polarity; with one, each has a request of
        its own, some at a time. What Milvus proposes is scored anew with the vectors themselves.
        """
        check_search_options(k, precursor_ppm, precursor_da)
        if k > MOST_HITS:
            raise InputError(f"the number of hits is {k:,}; Milvus gives {MOST_HITS:,} at most")
        if queries.model_hash != self.model_hash:
            raise InputError(
                f"the queries were embedded with the model {queries.model_hash[:12]}, the index was built with "
                f"{self.model_hash[:12]}; embed them with that"
            )
        num_queries = len(queries.precursor_mz)
        vectors = checked_vectors(queries.vectors, num_queries, dim=self.dim)
        precursor_mz = np.asarray(queries.precursor_mz, np.float64)
        polarity = np.asarray(queries.polarity, np.int8)
        ppm = None if precursor_da is not None else precursor_ppm
        windows = [window(mz, ppm, precursor_da) for mz in precursor_mz.tolist()]
        chosen = of_filters(filters)
        requests = list(_requests(windows, polarity))

        def ask(request: tuple[str, np.ndarray]) -> list[list[dict[str, Any]]]:
            own, rows = request
            expression = both(own, of_polarity(int(polarity[rows[0]])), chosen)
            return self._nearest(vectors[rows], k, expression, in_window=bool(own))

        rows = np.full((num_queries, k), -1, np.int64)
        scores = np.full((num_queries, k), np.nan, np.float32)
        error = np.full((num_queries, k), np.nan)
        for (_, members), answers in zip(requests, self._pool.map(ask, requests), strict=True):
            for query, hits in zip(members.tolist(), answers, strict=True):
                best = self._ranked(vectors[query], hits)[:k]
                for place, (score, library_mz, name) in enumerate(best):
                    rows[query, place] = self.found.number(name)
                    scores[query, place] = score
                    error[query, place] = (precursor_mz[query] - library_mz) / library_mz * 1e6
        counts = self._pool.map(self._count, windows) if any(windows) else [len(self)] * num_queries
        return Hits(rows, scores, error, np.array(list(counts), np.int64), "cosine", library=self.found)

    def within(
        self, precursor_mz: float, polarity: int, ppm: float | None, da: float | None, names: Sequence[str]
    ) -> pa.Table:
        """Return columns of the spectra that a query may hit, `MOST_ROWS` of them at most, in no order."""
        expression = both(window(precursor_mz, ppm, da), of_polarity(polarity))
        return table_of(self._call("query", filter=expression, output_fields=list(names), limit=MOST_ROWS), names)

    def delete(self, ids: Iterable[str]) -> int:
        """See `VectorStore.delete`."""
        names = list(dict.fromkeys(ids))
        there = {entity[ID] for entity in self._entities(names, [ID])}
        if missing := [name for name in names if name not in there]:
            raise InputError(f"the index has no spectrum {missing[0]}; name spectra that it has")
        for start in range(0, len(names), IDS_AT_ONCE):
            # pymilvus' own list of ids does not escape quotes.
            self._call("delete", filter=of_ids(names[start : start + IDS_AT_ONCE]))
        return len(names)

    def rows(self, ids: Sequence[str], names: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return columns of spectra, in the order of ``ids``.

        Raises
        ------
        InputError
            One is not there (any more).
        """
        unique = list(dict.fromkeys(ids))
        by_id = {entity[ID]: entity for entity in self._entities(unique, [*names, ID])}
        if missing := [name for name in unique if name not in by_id]:
            raise InputError(f"{self.address}: has no spectrum {missing[0]} (any more); search again")
        return table_of([by_id[name] for name in ids], names)

    def flush(self) -> None:
        """Seal what was added, so that Milvus builds its index; it can be searched before."""
        ask(self.address, self._client.flush, self.address.collection)

    def drop(self) -> None:
        """Remove the collection with all that it holds."""
        ask(self.address, self._client.drop_collection, self.address.collection)

    def close(self) -> None:
        """End the connection; with a file, what was added is on disk."""
        self._pool.shutdown()
        self._client.close()

    def _nearest(self, vectors: np.ndarray, k: int, expression: str, *, in_window: bool) -> list[list[dict[str, Any]]]:
        limit = min(2 * k + SPARE if self.kind in ("IVF_SQ8", "DISKANN") else k + SPARE, MOST_HITS)
        answers = self._call(
            "search",
            data=list(vectors),
            anns_field=vector_field(self.model_hash),
            filter=expression,
            limit=limit,
            output_fields=["precursor_mz", vector_field(self.model_hash)],
            search_params={"metric_type": "IP", "params": search_parameters(self.kind, limit, in_window=in_window)},
        )
        return [[{**hit["entity"], ID: hit[ID]} for hit in hits] for hits in answers]

    def _ranked(self, vector: np.ndarray, hits: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
        """Return (score, precursor m/z, id), best first; equal scores by precursor m/z and then by id."""
        if not hits:
            return []
        library = np.array([hit[vector_field(self.model_hash)] for hit in hits], np.float32)
        scores = np.multiply(library, vector, dtype=np.float64).sum(axis=1).astype(np.float32).tolist()
        triples = [(score, hit["precursor_mz"], hit[ID]) for score, hit in zip(scores, hits, strict=True)]
        return sorted(triples, key=lambda triple: (-triple[0], triple[1], triple[2]))

    def _count(self, expression: str) -> int:
        return int(self._call("query", filter=expression, output_fields=["count(*)"])[0]["count(*)"])

    def _entities(self, ids: Sequence[str], names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(ids), IDS_AT_ONCE):
            yield from self._call(
                "query", filter=of_ids(ids[start : start + IDS_AT_ONCE]), output_fields=list(dict.fromkeys(names))
            )

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return ask(self.address, getattr(self._client, name), self.address.collection, *arguments, **options)


def _requests(windows: Sequence[str], polarity: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the window and the queries of each request; those that share window and polarity go together."""
    groups: dict[tuple[str, int], list[int]] = {}
    for query, own in enumerate(windows):
        groups.setdefault((own, int(polarity[query])), []).append(query)
    for (own, _), members in groups.items():
        for start in range(0, len(members), QUERIES_AT_ONCE):
            yield own, np.array(members[start : start + QUERIES_AT_ONCE])


def _connections(address: Address) -> int:
    """Return how many requests go at once; a file has one reader."""
    return 1 if address.is_file else CONNECTIONS
