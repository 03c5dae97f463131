"""How cameras move: vehicles, hands and drones, as world_from_camera poses at given times.

The world's frame has x to the right, y down and z ahead, metres; the ground of a street is y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vo_stream.training.draw import Draw

_STEPS = 6
"""Integration steps of a vehicle between two frames."""
_SIDEWAYS_LIMIT = 4.0
"""m/s^2: a bend is no tighter than the speed allows."""
_GRAVITY = 9.81
"""m/s^2."""


@dataclass(frozen=True)
class Path:
    """Poses of n cameras over T frames, and when they were taken."""

    rotation: Tensor
    """(n, T, 3, 3) world_from_camera."""
    position: Tensor
    """(n, T, 3) m."""
    stamps: Tensor
    """(n, T) float64, s, from 0."""


def about_x(angle: Tensor) -> Tensor:
    """Return (..., 3, 3) rotations about x (pitch: positive looks up) by (...) rad."""
    return _about(angle, (2, 1))


def about_y(angle: Tensor) -> Tensor:
    """Return (..., 3, 3) rotations about y (yaw: positive looks right) by (...) rad."""
    return _about(angle, (0, 2))


def about_z(angle: Tensor) -> Tensor:
    """Return (..., 3, 3) rotations about z (roll) by (...) rad."""
    return _about(angle, (1, 0))


def _about(angle: Tensor, axes: tuple[int, int]) -> Tensor:
    i, j = axes
    out = torch.eye(3, dtype=angle.dtype, device=angle.device).repeat(*angle.shape, 1, 1)
    out[..., i, i] = out[..., j, j] = angle.cos()
    out[..., i, j] = angle.sin()
    out[..., j, i] = -angle.sin()
    return out


def exp(vector: Tensor) -> Tensor:
    """Return (..., 3, 3) rotations by rotation vectors (..., 3), rad."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    return torch.matrix_exp(skew.view(*x.shape, 3, 3))


def stamps(draw: Draw, n: int, frames: int, low: float, high: float) -> Tensor:
    """Return (n, T) stamps in s at rates of low to high Hz, with a little jitter."""
    period = 1 / draw.log_uniform(low, high, n, 1).double()
    jitter = draw.log_uniform(1e-4, 0.02, n, 1) * draw.uniform(-1, 1, n, frames)
    times = (torch.arange(frames) + jitter.double()) * period
    return times - times[:, :1]


def waves(draw: Draw, times: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return smooth signals (n, T, 3) of rate at most 1 a second, and their second derivatives.

    `times`: (n, T) s. Made of sines between two frequencies in Hz, the slower the larger.
    """
    n, terms = len(times), 4
    omega = 2 * math.pi * draw.log_uniform(low, high, n, 1, 1, terms)
    rate = draw.uniform(0.1, 1, n, 1, 1, terms)
    rate = rate / rate.sum(-1, keepdim=True)
    direction = draw.normal(n, 1, 3, terms)
    direction = direction / direction.norm(dim=2, keepdim=True)
    phase = omega * times.float()[:, :, None, None] + draw.uniform(0, 2 * math.pi, n, 1, 3, terms)
    signal = direction * rate * phase.sin()
    return (signal / omega).sum(-1), -(signal * omega).sum(-1)


def vehicle(draw: Draw, n: int, frames: int, bend: Tensor) -> Path:
    """Return drives along roads of curvature `bend` (n,) in 1/m through the origin, by z.

    A bicycle model: the camera rides ahead of the rear axle, which rolls along its heading.
    """
    times = stamps(draw, n, frames, 8, 30)
    speed = _speeds(draw, n, times)
    limit = _SIDEWAYS_LIMIT / speed.clamp(min=1).square()
    bend = bend.clamp(-limit.amin(1) / 2, limit.amin(1) / 2)
    turning = draw.chance(0.4, n) & (speed.amin(1) < 9)
    turn = draw.sign(n) / draw.log_uniform(6, 40, n)
    begin, ramp = draw.uniform(-2.5, 1.5, n), draw.uniform(0.8, 2.0, n)
    ahead = 8 + speed[:, 0]
    lane = draw.uniform(-0.5, 0.5, n)
    x, z = lane + draw.uniform(-0.2, 0.2, n), torch.zeros(n)
    yaw = 0.015 * draw.normal(n)
    states = [torch.stack([x, z, yaw], 1)]
    fine = speed.shape[1]
    step = (times[:, 1:] - times[:, :-1]).float().repeat_interleave(_STEPS, 1) / _STEPS
    now = torch.zeros(n)
    for k in range(fine - 1):
        phase = ((now - begin) / ramp).clamp(0, 1)
        off, skew = x - lane - 0.5 * bend * z.square(), yaw - bend * z
        follow = bend - off / ahead.square() - 2 * skew / ahead
        bent = torch.where(turning, turn * phase * phase * (3 - 2 * phase), follow)
        bent = bent.clamp(-limit[:, k], limit[:, k])
        run = speed[:, k] * step[:, k]
        half = yaw + 0.5 * run * bent
        x, z, yaw = x + run * half.sin(), z + run * half.cos(), yaw + run * bent
        now = now + step[:, k]
        states.append(torch.stack([x, z, yaw], 1))
    x, z, yaw = torch.stack(states, 1)[:, ::_STEPS].unbind(2)
    return _mounted(draw, times, x, z, yaw, speed)


def _speeds(draw: Draw, n: int, times: Tensor) -> Tensor:
    """Return (n, fine steps) speeds in m/s: cruising, braking, starting, standing."""
    start = times[:, :-1, None]
    inner = start + (times[:, 1:, None] - start) * torch.arange(_STEPS) / _STEPS
    fine = torch.cat([inner.flatten(1), times[:, -1:]], 1).float()
    kind = draw.uniform(0, 1, n, 1)
    town, slow, fast = (
        draw.uniform(3, 14, n, 1), draw.log_uniform(0.2, 3, n, 1), draw.uniform(14, 33, n, 1),
    )  # fmt: skip
    pick = draw.uniform(0, 1, n, 1)
    speed = torch.where(pick < 0.65, town, torch.where(pick < 0.78, slow, fast))
    change = 0.6 * draw.normal(n, 1)
    change = torch.where(kind < 0.12, -draw.uniform(1, 4, n, 1), change)
    speed = torch.where(kind < 0.05, speed.clamp(max=6), speed)
    starting = (kind > 0.82) & (kind < 0.9)
    speed, change = (
        torch.where(starting, 0, speed), torch.where(starting, draw.uniform(0.5, 2.5, n, 1), change)
    )  # fmt: skip
    standing = kind > 0.95
    speed, change = torch.where(standing, 0, speed), torch.where(standing, 0, change)
    since = (fine - draw.uniform(-0.3, 1, n, 1).clamp(min=0) * fine[:, -1:]).clamp(min=0)
    return (speed + change * since).clamp(0, 33)


def _mounted(draw: Draw, times: Tensor, x: Tensor, z: Tensor, yaw: Tensor, speed: Tensor) -> Path:
    n = len(times)
    speed = speed[:, ::_STEPS]
    gain = torch.gradient(speed, dim=1)[0] / (times[:, -1:] / (times.shape[1] - 1)).float()
    lever, aside = draw.uniform(0.3, 2.8, n, 1), draw.uniform(-0.35, 0.35, n, 1)
    usual = 1.65 + 0.06 * draw.normal(n, 1)
    height = torch.where(draw.chance(0.75, n, 1), usual, draw.uniform(1.4, 1.9, n, 1))
    shake, _ = waves(draw, times, 0.6, 3.0)
    shake = shake * (speed / 6).clamp(max=1)[..., None] * draw.uniform(0.2, 1.5, n, 1, 1)
    pitch = 0.025 * shake[..., 0] + 0.02 * draw.normal(n, 1) + 0.004 * gain.clamp(-4, 4)
    roll = 0.02 * shake[..., 1] + 0.01 * draw.normal(n, 1)
    askew = torch.where(draw.chance(0.1, n, 1), 0.3, 0.015) * draw.normal(n, 1)
    body = torch.stack(
        [x + lever * yaw.sin() + aside * yaw.cos(), -height.clamp(1.4, 1.9) + 0.06 * shake[..., 2],
         z + lever * yaw.cos() - aside * yaw.sin()], 2,
    )  # fmt: skip
    return Path(about_y(yaw + askew) @ about_x(pitch) @ about_z(roll), body, times)


def hand_held(draw: Draw, n: int, frames: int, down: tuple[float, float] = (-0.4, 0.3)) -> Path:
    """Return hand-held moves about the origin, up to 1.5 m/s and 60 deg/s.

    Some only turn, some stand still, some slide along what they face. `down`: range of the
    pitch at first, rad, positive up.
    """
    times = stamps(draw, n, frames, 8, 30)
    kind = draw.uniform(0, 1, n, 1, 1)
    fast = draw.log_uniform(0.05, 1.5, n, 1, 1) * (kind > 0.16)
    turn = draw.log_uniform(0.03, math.radians(60), n, 1, 1)
    still = kind < 0.06
    sliding = kind > 0.9
    turn = torch.where(still | sliding, 0.002, turn)
    fast = torch.where(still, 0.001, fast)
    moved, _ = waves(draw, times, 0.15, 2.0)
    turned, _ = waves(draw, times, 0.15, 2.0)
    drift = draw.normal(n, 1, 3) * torch.tensor([1.0, 0.5, 1.0])
    drift = drift / drift.norm(dim=2, keepdim=True)
    steady = draw.uniform(0, 1, n, 1, 1)
    position = fast * (steady * drift * times.float()[..., None] + (1 - steady) * moved)
    quarter = math.pi / 2 * draw.integers(0, 4, n)
    yaw = torch.where(draw.chance(0.3, n), quarter + 0.05 * draw.normal(n), draw.uniform(0, 7, n))
    roll = 0.12 * draw.normal(n)
    tilted = about_x(draw.uniform(*down, n)) @ about_z(roll)
    upright = (about_y(yaw) @ tilted)[:, None]
    position = torch.where(sliding, _in_image_plane(position, upright), position)
    return Path(upright @ exp(turn * turned), position, times)


def _in_image_plane(position: Tensor, rotation: Tensor) -> Tensor:
    ahead = rotation[..., 2]
    return position - ahead * (position * ahead).sum(-1, keepdim=True)


def drone(draw: Draw, n: int, frames: int) -> Path:
    """Return flights about the origin at up to 3.5 m/s, tilting as they accelerate."""
    times = stamps(draw, n, frames, 18, 30)
    fast = draw.log_uniform(0.1, 3.5, n, 1, 1)
    moved, pushed = waves(draw, times, 0.1, 0.8)
    drift = draw.normal(n, 1, 3) * torch.tensor([1.0, 0.3, 1.0])
    drift = drift / drift.norm(dim=2, keepdim=True)
    steady = draw.uniform(0, 1, n, 1, 1)
    position = fast * (steady * drift * times.float()[..., None] + (1 - steady) * moved)
    push = fast * (1 - steady) * pushed / _GRAVITY
    spin, _ = waves(draw, times, 0.1, 0.8)
    yaw = draw.uniform(0, 7, n, 1) + draw.uniform(0, 1.2, n, 1) * spin[..., 0]
    right = push[..., 0] * yaw.cos() - push[..., 2] * yaw.sin()
    ahead = push[..., 0] * yaw.sin() + push[..., 2] * yaw.cos()
    tremor, _ = waves(draw, times, 1.0, 6.0)
    tremor = tremor * draw.uniform(0, 0.15, n, 1, 1)
    pitch = draw.uniform(-0.6, 0.1, n, 1) - ahead.clamp(-0.5, 0.5)
    roll = right.clamp(-0.5, 0.5) + 0.03 * draw.normal(n, 1)
    rotation = about_y(yaw) @ about_x(pitch) @ about_z(roll) @ exp(tremor)
    return Path(rotation, position, times)
