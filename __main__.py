"""``python -m ionbed``: what ``accelerate launch -m ionbed`` starts on every process."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
