"""Dataclasses whose fields are tensors, handled as one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def values(record: object) -> dict[str, Any]:
    """Return a dataclass's fields by name."""
    return {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]


def moved(record: Record, device: torch.device | str) -> Record:
    """Return a dataclass of tensors, or of such dataclasses, or of None, on a device."""

    def move(value: Any) -> Any:
        if value is None:
            return None
        return value.to(device) if isinstance(value, Tensor) else moved(value, device)

    return type(record)(**{name: move(value) for name, value in values(record).items()})


def joined(records: list[Record], dim: int) -> Record:
    """Return dataclasses of tensors joined along a dimension that all their tensors have."""
    columns = {n: torch.cat([getattr(r, n) for r in records], dim) for n in values(records[0])}
    return type(records[0])(**columns)
