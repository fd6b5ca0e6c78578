"""A collection of Milvus: its fields, the kind of its index, and how much of that a search visits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from ..spectra.store import SCHEMA
from .milvus_rows import ID, LISTS, LONGEST_ID, LONGEST_PART, LONGEST_TEXT, MOST_PEAKS, PEAKS, vector_field

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MilvusIndexKind = Literal["FLAT", "HNSW", "IVF_SQ8", "DISKANN"]

FLAT_UP_TO, HNSW_UP_TO, IVF_UP_TO = 50_000, 20_000_000, 500_000_000
INVERTED_LISTS, LISTS_VISITED = 1024, 64
"""Of a segment of Milvus (1 GB at most, unless it is set otherwise), and how many an open search visits."""


def choose_kind(num_spectra: int) -> MilvusIndexKind:
    """Return the kind of index for a number of spectra; docs/scale.md says what each costs.

    Every vector is compared up to `FLAT_UP_TO`; a graph in memory up to `HNSW_UP_TO`; one byte a number in inverted
    lists up to `IVF_UP_TO`; beyond that a graph on solid-state disks.
    """
    if num_spectra <= FLAT_UP_TO:
        return "FLAT"
    if num_spectra <= HNSW_UP_TO:
        return "HNSW"
    return "IVF_SQ8" if num_spectra <= IVF_UP_TO else "DISKANN"


def search_parameters(kind: str, limit: int, *, in_window: bool) -> dict[str, int]:
    """Return how much of an index of a kind a search visits.

    In a precursor window every inverted list is visited: few of their rows pass, and any list may have them. A graph is
    left by Milvus itself where a filter lets few rows pass.
    """
    if kind == "HNSW":
        return {"ef": max(128, 4 * limit)}
    if kind == "IVF_SQ8":
        return {"nprobe": INVERTED_LISTS if in_window else LISTS_VISITED}
    return {"search_list": max(200, 4 * limit)} if kind == "DISKANN" else {}


def collection_schema(client: MilvusClient, model_hash: str, dim: int) -> Any:
    """Return the fields of a collection: every column of the store, the vector, and what filters compare."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
    schema.add_field(vector_field(model_hash), DataType.FLOAT_VECTOR, dim=dim)
    scalars = {
        pa.float64(): DataType.DOUBLE, pa.float32(): DataType.FLOAT, pa.int8(): DataType.INT8,
        pa.bool_(): DataType.BOOL,
    }  # fmt: skip
    text: dict[str, Any] = {"datatype": DataType.VARCHAR, "max_length": LONGEST_TEXT}
    array: dict[str, Any] = {"datatype": DataType.ARRAY, "max_capacity": MOST_PEAKS}
    texts = array | {"element_type": DataType.VARCHAR, "max_length": LONGEST_PART}
    for column in SCHEMA:
        if column.name in PEAKS:
            schema.add_field(column.name, **array, element_type=DataType.FLOAT)
        elif column.name in LISTS:
            schema.add_field(column.name, **texts)
        elif column.type == pa.string() and column.name != ID:
            schema.add_field(column.name, **text, nullable=True)
        elif column.name != ID:
            is_known = not column.nullable or column.name == "polarity"
            schema.add_field(column.name, scalars[column.type], nullable=not is_known)
    schema.add_field("formula_key", **text, nullable=True)
    schema.add_field("license_key", **text, nullable=True)
    schema.add_field("instrument_parts", **texts)
    return schema


def index_params(client: MilvusClient, model_hash: str, kind: str) -> Any:
    """Return the indexes of a collection: of the vectors, and of the precursor m/z."""
    parameters = {"HNSW": {"M": 32, "efConstruction": 200}, "IVF_SQ8": {"nlist": INVERTED_LISTS}}
    params = client.prepare_index_params()
    name = vector_field(model_hash)
    params.add_index(name, index_name=name, index_type=kind, metric_type="IP", params=parameters.get(kind, {}))
    # Sorted values would do as well; milvus-lite has this kind only.
    params.add_index("precursor_mz", index_type="INVERTED")
    return params
