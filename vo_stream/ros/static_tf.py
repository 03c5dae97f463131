"""The tree of /tf_static: where the camera sits on the robot."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from vo_stream.se3 import SE3

logger = logging.getLogger(__name__)

MAX_LENGTH_M = 1e9
"""A longer transform is a fault; those to a grid of the whole Earth are 1e7."""

MAX_REASONS = 100
"""Faults that are told one by one."""

_LISTED_TRANSFORMS = 6


class StaticTree:
    """The transforms that were heard on /tf_static, of however many publishers.

    A frame has one parent, and the latest word on a frame holds. A transform that cannot be used
    is ignored: `ignored` counts them, and the log gets each reason once.
    """

    def __init__(self) -> None:
        self.ignored = 0
        self._parents: dict[str, tuple[str, SE3]] = {}
        """Of each child: its parent and parent_from_child."""
        self._reasons: set[str] = set()

    def add(self, transforms: Iterable[Any]) -> bool:
        """Take in the transforms of a TFMessage; return whether the tree is another one now."""
        changed = False
        for transform in transforms:
            parent = plain_name(transform.header.frame_id)
            child = plain_name(transform.child_frame_id)
            parent_from_child = _motion_of(transform.transform)
            fault = _fault(parent, child, parent_from_child)
            if parent_from_child is None or fault:
                self._ignore(f"/tf_static: {_arrow(parent, child)} {fault} and is ignored")
                continue
            known = self._parents.get(child)
            if known is None or not _same(known, (parent, parent_from_child)):
                self._parents[child] = (parent, parent_from_child)
                changed = True
        return changed

    def lookup(self, target: str, source: str) -> SE3 | None:
        """Return target_from_source; None where the two are not connected.

        A frame is connected with itself, known or not. Where faulty publishers have put frames
        into a loop, the shortest way up from `source` is taken.
        """
        ways = self._way_up(plain_name(target))
        for ancestor, ancestor_from_source in self._way_up(plain_name(source)).items():
            if ancestor in ways:
                return ways[ancestor].inverse() @ ancestor_from_source
        return None

    def why_not(self, target: str, source: str) -> str:
        """Say in one line why `lookup` finds nothing; empty where it does."""
        if self.lookup(target, source) is not None:
            return ""
        target, source = plain_name(target), plain_name(source)
        faulty = ""
        if self.ignored:
            were = "transform was" if self.ignored == 1 else "transforms were"
            faulty = f" ({self.ignored} faulty {were} ignored)"
        known = self._parents.keys() | {parent for parent, _ in self._parents.values()}
        unknown = [_printable(frame) for frame in (target, source) if frame not in known]
        if not known:
            why = f"nothing was heard on /tf_static{faulty}"
        elif unknown:
            why = f"/tf_static has nothing of {' and '.join(unknown)}; it knows {self._listed()}"
            why += faulty
        else:
            tops = [_printable(list(self._way_up(frame))[-1]) for frame in (target, source)]
            why = f"/tf_static has them in two trees, under {' and '.join(tops)}{faulty}"
        return f"no transform {_arrow(target, source)}: {why}"

    def _way_up(self, frame: str) -> dict[str, SE3]:
        """Return ancestor_from_frame of the frame itself and all above it, nearest first."""
        way = {frame: SE3.identity()}
        here = frame
        while (step := self._parents.get(here)) is not None and step[0] not in way:
            parent, parent_from_here = step
            way[parent] = parent_from_here @ way[here]
            here = parent
        return way

    def _listed(self) -> str:
        texts = [_arrow(parent, child) for child, (parent, _) in self._parents.items()]
        more = ["..."] * (len(texts) > _LISTED_TRANSFORMS)
        return ", ".join(texts[:_LISTED_TRANSFORMS] + more)

    def _ignore(self, reason: str) -> None:
        self.ignored += 1
        if reason not in self._reasons and len(self._reasons) < MAX_REASONS:
            self._reasons.add(reason)
            logger.warning("%s", reason)


def plain_name(frame: str) -> str:
    """Return a frame's name as tf2 has it: without the slash that ROS 1 allowed in front."""
    return frame.lstrip("/")


def _motion_of(transform: Any) -> SE3 | None:
    """Return parent_from_child of a geometry_msgs/Transform; None for a zero quaternion."""
    t, q = transform.translation, transform.rotation
    if q.x == q.y == q.z == q.w == 0.0:
        return None
    return SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [t.x, t.y, t.z])


def _fault(parent: str, child: str, parent_from_child: SE3 | None) -> str:
    """Say what is wrong with a transform; empty where nothing is."""
    if not parent or not child:
        return "lacks a frame's name"
    if parent == child:
        return "is of a frame to itself"
    if parent_from_child is None:
        return "has a quaternion of zeros"
    if not parent_from_child.is_finite:
        return "is not finite"
    if math.hypot(*parent_from_child.translation) > MAX_LENGTH_M:
        return f"is longer than {MAX_LENGTH_M:g} m"
    return ""


def _same(one: tuple[str, SE3], other: tuple[str, SE3]) -> bool:
    return one[0] == other[0] and bool((one[1].wxyz_xyz == other[1].wxyz_xyz).all())


def _arrow(parent: str, child: str) -> str:
    return f"{_printable(parent)} -> {_printable(child)}"


def _printable(name: str) -> str:
    return name if name and name.isprintable() else repr(name)
