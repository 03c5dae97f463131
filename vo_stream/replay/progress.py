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
