"""Search over HTTP: an index, opened once, behind `ionbed serve`, with limits on all that a client may ask."""
