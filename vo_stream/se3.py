"""Rigid motion in three dimensions.

Conventions: a transform is named `a_from_b` and maps points in frame b to points in frame a, so
that `a_from_b @ b_from_c == a_from_c`. A twist is (v, w): translation part first (metres), then
rotation part (radians), the order of a ROS covariance matrix. Formulas: Barfoot, "State Estimation
for Robotics" (2017), chapter 7; Sola et al., "A micro Lie theory" (2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from transforms3d import quaternions

Array: TypeAlias = npt.NDArray[np.float64]

_SMALL_ANGLE_RAD = 1e-4
"""Below this the closed forms lose digits and their Taylor series are exact to 1e-16."""


def skew(v: npt.ArrayLike) -> Array:
    """Return the (3, 3) matrix with `skew(v) @ u == cross(v, u)`."""
    x, y, z = np.asarray(v, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation_from_vector(rotation_vector: npt.ArrayLike) -> Array:
    """Return the (3, 3) rotation matrix of a rotation vector in radians (Rodrigues' formula)."""
    w = np.asarray(rotation_vector, dtype=np.float64)
    a, b, _ = _coefficients(float(np.linalg.norm(w)))
    k = skew(w)
    return np.eye(3) + a * k + b * (k @ k)


@dataclass(frozen=True, slots=True, eq=False)
class SE3:
    """A rigid motion `a_from_b`.

    `wxyz_xyz`: (7,) float64, read-only: unit quaternion with the scalar first, then the
    translation in metres. Values that are not finite are kept as they are, so that one `is_finite`
    at the door finds them; a zero quaternion raises ValueError.
    """

    wxyz_xyz: Array

    def __post_init__(self) -> None:
        values = np.array(self.wxyz_xyz, dtype=np.float64)
        if values.shape != (7,):
            raise ValueError(f"SE3 takes 7 numbers (wxyz, xyz), not shape {values.shape}")
        norm = math.hypot(*values[:4])
        if norm == 0.0:
            raise ValueError("a quaternion of zeros is no rotation")
        values[:4] = values[:4] / norm if math.isfinite(norm) else math.nan
        values.flags.writeable = False
        object.__setattr__(self, "wxyz_xyz", values)

    @staticmethod
    def identity() -> SE3:
        """Return the motion that moves nothing."""
        return SE3(np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))

    @staticmethod
    def from_rotation_translation(rotation: npt.ArrayLike, translation: npt.ArrayLike) -> SE3:
        """Build from a (3, 3) rotation matrix and a (3,) translation in metres."""
        r = np.asarray(rotation, dtype=np.float64)
        t = np.asarray(translation, dtype=np.float64)
        if not np.isfinite(r).all():  # mat2quat's eigenvalue solver refuses these
            return SE3(np.concatenate([np.full(4, np.nan), t]))
        return SE3(np.concatenate([quaternions.mat2quat(r), t]))

    @staticmethod
    def from_matrix(matrix: npt.ArrayLike) -> SE3:
        """Build from a (3, 4) or (4, 4) homogeneous matrix."""
        m = np.asarray(matrix, dtype=np.float64)
        return SE3.from_rotation_translation(m[:3, :3], m[:3, 3])

    @staticmethod
    def from_quaternion_xyzw(quaternion: npt.ArrayLike, translation: npt.ArrayLike) -> SE3:
        """Build from a quaternion with the scalar last, the order of ROS and TUM files."""
        x, y, z, w = np.asarray(quaternion, dtype=np.float64)
        return SE3(np.concatenate([[w, x, y, z], np.asarray(translation, dtype=np.float64)]))

    @staticmethod
    def exp(twist: npt.ArrayLike) -> SE3:
        """Exponential map of a (6,) twist (v metres, w radians)."""
        xi = np.asarray(twist, dtype=np.float64)
        v, w = xi[:3], xi[3:]
        angle = float(np.linalg.norm(w))
        _, b, c = _coefficients(angle)
        k = skew(w)
        k2 = k @ k
        rotation_half = 0.5 * _coefficients(0.5 * angle)[0]
        quaternion = np.concatenate([[math.cos(0.5 * angle)], rotation_half * w])
        return SE3(np.concatenate([quaternion, v + b * (k @ v) + c * (k2 @ v)]))

    def log(self) -> Array:
        """Logarithm: the (6,) twist (v metres, w radians) with |w| at most pi."""
        w = self.rotation_vector
        angle = float(np.linalg.norm(w))
        a, b, _ = _coefficients(angle)
        k = skew(w)
        d = 1.0 / 12.0 if angle < _SMALL_ANGLE_RAD else (1.0 - 0.5 * a / b) / angle**2
        t = self.translation
        return np.concatenate([t - 0.5 * (k @ t) + d * (k @ (k @ t)), w])

    @property
    def rotation(self) -> Array:
        """The (3, 3) rotation matrix."""
        return np.asarray(quaternions.quat2mat(self.wxyz_xyz[:4]), dtype=np.float64)

    @property
    def rotation_vector(self) -> Array:
        """The (3,) rotation vector in radians, its length at most pi."""
        q = self.wxyz_xyz[:4] if self.wxyz_xyz[0] >= 0.0 else -self.wxyz_xyz[:4]
        sine = float(np.linalg.norm(q[1:]))
        if sine == 0.0:
            return np.zeros(3) + q[1:]
        return np.asarray(2.0 * math.atan2(sine, float(q[0])) / sine * q[1:], dtype=np.float64)

    @property
    def translation(self) -> Array:
        """The (3,) translation in metres (a read-only view)."""
        return self.wxyz_xyz[4:]

    @property
    def quaternion_xyzw(self) -> Array:
        """The unit quaternion with the scalar last and not negative."""
        w, x, y, z = self.wxyz_xyz[:4] if self.wxyz_xyz[0] >= 0.0 else -self.wxyz_xyz[:4]
        return np.array([x, y, z, w])

    @property
    def angle(self) -> float:
        """The rotation's angle in radians, 0 to pi."""
        return float(np.linalg.norm(self.rotation_vector))

    @property
    def is_finite(self) -> bool:
        """Whether all seven numbers are finite."""
        return bool(np.isfinite(self.wxyz_xyz).all())

    def as_matrix(self) -> Array:
        """Return the (4, 4) homogeneous matrix."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    def inverse(self) -> SE3:
        """Return `b_from_a`."""
        conjugate = self.wxyz_xyz[:4] * np.array([1.0, -1.0, -1.0, -1.0])
        return SE3(np.concatenate([conjugate, -(self.rotation.T @ self.translation)]))

    def adjoint(self) -> Array:
        """Return the (6, 6) matrix with `exp(Ad @ xi) @ self == self @ exp(xi)`."""
        r = self.rotation
        adjoint = np.zeros((6, 6))
        adjoint[:3, :3] = adjoint[3:, 3:] = r
        adjoint[:3, 3:] = skew(self.translation) @ r
        return adjoint

    def transport(self, covariance: npt.ArrayLike) -> Array:
        """Move a (6, 6) twist covariance from frame b to frame a: `Ad @ covariance @ Ad.T`."""
        adjoint = self.adjoint()
        moved = adjoint @ np.asarray(covariance, dtype=np.float64) @ adjoint.T
        return np.asarray(0.5 * (moved + moved.T), dtype=np.float64)

    def interpolate(self, other: SE3, fraction: float) -> SE3:
        """Return the motion at `fraction` of the way to `other` along the screw between them."""
        return self @ SE3.exp(fraction * (self.inverse() @ other).log())

    def __matmul__(self, other: SE3) -> SE3:
        """Compose: `a_from_b @ b_from_c` is `a_from_c`."""
        quaternion = quaternions.qmult(self.wxyz_xyz[:4], other.wxyz_xyz[:4])
        translation = self.rotation @ other.translation + self.translation
        return SE3(np.concatenate([quaternion, translation]))

    def apply(self, points: npt.ArrayLike) -> Array:
        """Map (n, 3) points in frame b to (n, 3) points in frame a."""
        moved = np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation
        return np.asarray(moved, dtype=np.float64)


def _coefficients(angle: float) -> tuple[float, float, float]:
    """Return sin(x)/x, (1-cos(x))/x^2 and (x-sin(x))/x^3 at x = angle."""
    square = angle * angle
    if angle < _SMALL_ANGLE_RAD:
        return 1.0 - square / 6.0, 0.5 - square / 24.0, 1.0 / 6.0 - square / 120.0
    sine, half = math.sin(angle), math.sin(0.5 * angle)
    return sine / angle, 2.0 * half * half / square, (angle - sine) / (square * angle)
