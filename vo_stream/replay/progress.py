"""The progress bar of a replay: frames, frames per second, status."""

from __future__ import annotations

import logging

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from vo_stream.values import Estimate


class Progress:
    """A bar on standard error while a replay runs; call it with each estimate."""

    def __init__(self, title: str, total: int | None, shown: bool) -> None:
        hidden = None if shown else True  # None: where there is no terminal
        self._bar = tqdm(total=total, desc=title, unit=" frames", disable=hidden, leave=False)
        self._log = logging_redirect_tqdm([logging.getLogger()])

    def __call__(self, estimate: Estimate) -> None:
        """Move on by one frame."""
        self._bar.set_postfix_str(estimate.status.value, refresh=False)
        self._bar.update()

    def say(self, what: str) -> None:
        """Show what goes on while no frame can come; the time it takes is not the frames'."""
        self._bar.set_postfix_str(what)
        self._bar.unpause()

    def __enter__(self) -> Progress:
        self._log.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._log.__exit__(None, None, None)
        self._bar.close()


class BagTime:
    """A line on standard error while a bag is played; call it with the seconds it has come to.

    Shows nothing where there is no terminal.
    """

    def __init__(self, title: str) -> None:
        layout = "{desc}: bag time {n:.1f} s"
        self._line = tqdm(
            desc=title, bar_format=layout, disable=None, leave=False, mininterval=0.2, miniters=0
        )
        self._log = logging_redirect_tqdm([logging.getLogger()])

    def __call__(self, bag_s: float) -> None:
        """Show how far the bag has come; it may go back."""
        self._line.update(bag_s - self._line.n)

    def __enter__(self) -> BagTime:
        self._log.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._log.__exit__(None, None, None)
        self._line.close()
