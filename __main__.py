"""``python -m ionbed``: what ``accelerate launch -m ionbed`` starts on every process."""

from .cli import run

if __name__ == "__main__":
    run()
