"""What Prometheus is told: requests, how long they take, how large batches are, and what waits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one service; each has a registry of its own, so that several can run in one process.

    Attributes
    ----------
    waiting : Gauge
        Spectra that wait for the model.
    running : Gauge
        Requests that are worked on.
    jobs : Gauge
        Batch jobs by state.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ionbed_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "ionbed_request_seconds", "Time from the first byte of a request to the end of its answer.",
            ["route"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._batch_spectra = Histogram(
            "ionbed_batch_spectra", "Queries that were searched together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), registry=registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "ionbed_batch_seconds", "Time that a batch took.", buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("ionbed_waiting_spectra", "Queries that wait for the model.", registry=registry)
        self.running = Gauge("ionbed_running_requests", "Requests that are worked on.", registry=registry)
        self.jobs = Gauge("ionbed_jobs", "Batch jobs that are kept.", ["state"], registry=registry)
        self._generation = Gauge(
            "ionbed_index_generation", "1 for the numbering of rows that is served.", ["generation"], registry=registry
        )
        self._rows = Gauge("ionbed_index_rows", "Rows that can be hits.", registry=registry)
        self._changes = Counter(
            "ionbed_index_changes", "States of the index taken over since the start.", registry=registry
        )
        self._outdated = Gauge(
            "ionbed_index_outdated", "1 where the index was changed and its new state cannot be served.",
            registry=registry,
        )  # fmt: skip

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template of its path, so that no client makes up labels."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, num_spectra: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_spectra.observe(num_spectra)
        self._batch_seconds.observe(seconds)

    def index(self, generation: str, num_rows: int, *, is_new: bool, is_outdated: bool) -> None:
        """Tell which state of the index is served."""
        self._generation.clear()
        self._generation.labels(generation).set(1)
        self._rows.set(num_rows)
        self._changes.inc(is_new)
        self._outdated.set(is_outdated)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
