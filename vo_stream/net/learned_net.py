"""What every backend that runs the network does around it, whatever runs it.

A frame that shows nothing does not enter the network's memory: the motion is guessed, the memory
stays with the last good frame, and the next one that shows something is matched with that. The
network is told how long ago it was; it was trained with frames left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.se3 import SE3
from vo_stream.values import Motion

CELL = 8
"""Side of a cell of the network's grid, in pixels."""

KEEP_IMAGE_S = 0.3
"""How long the last good frame is kept for matching while new ones show nothing."""

MIN_CONTRAST = 2.0
"""Standard deviation of grey levels below which an image is dark or blank: a camera's noise."""

MIN_TRUST = 0.01
"""Mean share of trust in the cells below which nothing was matched."""

MAX_STD_RAD = 0.5
"""A rotation that is known no better was not seen."""

BLIND_STD_M, BLIND_STD_RAD = 0.05, 0.01
"""Least standard deviations of a guessed motion."""

LONGEST_PREDICTION = 3.0
"""A motion is predicted to go on for at most this many of its own durations."""

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

Memory = TypeVar("Memory")
"""What a backend keeps of the frames before: the tensors of the state."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network says of one step.

    `rotation` (3, 3), `translation` (3,) m: prev_from_curr. `std`: (6,) as in `Motion`. `trust`:
    mean over the cells, 0..1. `sound`: whether all of the new state is finite.
    """

    rotation: Floats
    translation: Floats
    std: Floats
    trust: float
    sound: bool


@dataclass(frozen=True, slots=True, eq=False)
class LearnedState(Generic[Memory]):
    """All that is remembered of a stream.

    `memory`: after the last good frame, None before there was one. `begun`: whether there was a
    frame. `image_from_reported`: from where the odometer has been told the camera is to where
    that frame was taken. `age_s`: time since it. `motion`, `dt_s`: the last motion, and how long
    it took.
    """

    memory: Memory | None = None
    begun: bool = False
    image_from_reported: SE3 = field(default_factory=SE3.identity)
    age_s: float = 0.0
    motion: SE3 = field(default_factory=SE3.identity)
    dt_s: float = 0.0

    def prediction(self, dt_s: float) -> SE3:
        """Return the motion if the camera goes on as it did."""
        if self.dt_s <= 0.0:
            return SE3.identity()
        return SE3.exp(min(LONGEST_PREDICTION, dt_s / self.dt_s) * self.motion.log())


class LearnedNet(ABC, Generic[Memory]):
    """StepNet from the network; stateless but for the rays that it has seen last."""

    def __init__(self, spec: NetSpec) -> None:
        self.spec = spec
        self._rays: npt.NDArray[np.float32] | None = None
        self._cells: Floats = np.empty(0, dtype=np.float32)

    @abstractmethod
    def _clean(self, width: int, height: int) -> Memory:
        """Return the memory of a stream that has seen nothing, for images of that size."""

    @abstractmethod
    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Memory
    ) -> tuple[Answer, Memory]:
        """Take one step; raises NetError. `rays`: (2, h, w) of the cells' centres.

        `memory` stays as it is until the one that is returned is stepped from.
        """

    def start(self, after: NetState | None = None) -> LearnedState[Memory]:
        """Return the state before the first frame; nothing outlives an interruption."""
        return LearnedState()

    def close(self) -> None:
        """Nothing to free."""

    def step(
        self, image: Image, rays: npt.NDArray[np.float32], dt_s: float, state: NetState
    ) -> tuple[Motion | None, LearnedState[Memory]]:
        """See StepNet.step; raises NetError where the network cannot be run."""
        assert isinstance(state, LearnedState)
        if not state.begun:
            return None, replace(state, memory=self._first(image, rays), begun=True)
        age_s = state.age_s + dt_s
        if state.memory is None:
            blind = "there is no good image before this one"
        elif is_blank(image):
            blind = "the image is dark or blank"
        else:
            answer, memory = self._run(image, self._cells_of(rays), age_s, state.memory)
            blind = unseen(answer)
        if blind:
            return self._guessed(image, rays, dt_s, state, blind)
        image_from_now = SE3.from_rotation_translation(answer.rotation, answer.translation)
        motion = state.image_from_reported.inverse() @ image_from_now
        following = LearnedState(memory, begun=True, motion=motion, dt_s=dt_s)
        return Motion(motion, answer.std.astype(np.float64)), following

    def _first(self, image: Image, rays: npt.NDArray[np.float32]) -> Memory | None:
        """Return the memory of this frame alone; None where it shows nothing."""
        if is_blank(image):
            return None
        height, width = image.shape
        answer, memory = self._run(image, self._cells_of(rays), 0.0, self._clean(width, height))
        return memory if answer.sound else None

    def _guessed(
        self,
        image: Image,
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: LearnedState[Memory],
        reason: str,
    ) -> tuple[Motion, LearnedState[Memory]]:
        """Guess that the motion went on; begin anew when the last good frame is too old."""
        guess = state.prediction(dt_s)
        length = float(np.linalg.norm(guess.translation)) + BLIND_STD_M
        std = np.repeat([length, guess.angle + BLIND_STD_RAD], 3)
        motion = Motion(guess, std, observed=False, reason=reason)
        following = replace(
            state,
            image_from_reported=state.image_from_reported @ guess,
            age_s=state.age_s + dt_s,
            motion=guess,
            dt_s=dt_s,
        )
        if state.memory is not None and following.age_s <= KEEP_IMAGE_S:
            return motion, following
        return motion, replace(
            following,
            memory=self._first(image, rays),
            image_from_reported=SE3.identity(),
            age_s=0.0,
        )

    def _cells_of(self, rays: npt.NDArray[np.float32]) -> Floats:
        """Return the rays of the cells' centres, the same array for the same array."""
        if rays is not self._rays:
            self._rays, self._cells = rays, rays_of_cells(rays)
        return self._cells


def is_blank(image: Image) -> bool:
    """Whether an image shows nothing."""
    _, spread = cv2.meanStdDev(image)
    return float(spread[0, 0]) < MIN_CONTRAST


def unseen(answer: Answer) -> str:
    """Return why an answer is not what the images show; empty where it is."""
    said = np.concatenate([answer.rotation.ravel(), answer.translation, answer.std])
    if not (answer.sound and np.isfinite(said).all() and (answer.std > 0.0).all()):
        return "the network's answer is not finite"
    if not answer.trust >= MIN_TRUST:
        return "too little of the image was seen before"
    if float(answer.std[3:].max()) > MAX_STD_RAD:
        return "the images do not show the motion"
    return ""


def rays_of_cells(rays: npt.NDArray[np.float32]) -> Floats:
    """Return the rays (2, h, w) of the cells' centres from those (height, width, 2) of the pixels.

    A centre lies between four pixels; rays are regular, so their mean is its ray.
    """
    low, high = CELL // 2 - 1, CELL // 2
    four = [rays[v::CELL, u::CELL] for v in (low, high) for u in (low, high)]
    mean = np.asarray(np.mean(four, axis=0, dtype=np.float64))
    return np.ascontiguousarray(np.moveaxis(mean, 2, 0), dtype=np.float32)
