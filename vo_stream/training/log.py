"""What a training tells while it runs: a progress bar, TensorBoard's files, and plain CSV."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


class CsvLog:
    """Rows of numbers by name, appended to a file; other names begin a new header line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                headers = [row for row in csv.reader(file) if row and row[0].isalpha()]
            self._names = headers[-1] if headers else []

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; it is on the disk's way when this returns."""
        names = list(row)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if names != self._names:
                writer.writerow(names)
                self._names = names
            writer.writerow([f"{value:.6g}" for value in row.values()])


class TrainingLog:
    """The log of one run in `folder`: train.csv, validation.csv and TensorBoard's files.

    The bar counts the training's seconds, `done_s` of `total_s` at the start.
    """

    def __init__(self, folder: Path, total_s: float, done_s: float, shown: bool = True) -> None:
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self._files = {name: CsvLog(folder / f"{name}.csv") for name in ("train", "validation")}
        layout = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
        self._bar = tqdm(
            desc="training",
            total=total_s,
            initial=done_s,
            bar_format=layout,
            disable=None if shown else True,  # None: where there is no terminal
        )
        self._total_s = total_s
        self._redirect = logging_redirect_tqdm([logging.getLogger()])

    def add(self, kind: str, steps: int, seconds: float, values: Mapping[str, float]) -> None:
        """Log numbers by name; `kind`: train or validation."""
        self._files[kind].add({"steps": steps, "seconds": seconds, **values})
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, steps)

    def show(self, seconds: float, text: str) -> None:
        """Move the bar to where the training is."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(min(seconds, self._total_s) - self._bar.n)

    def __enter__(self) -> TrainingLog:
        self._redirect.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._redirect.__exit__(None, None, None)
        self._bar.close()
        self._board.close()
