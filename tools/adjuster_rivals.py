"""The solvers that are compared: ours and others.

The others are no dependencies. GTSAM and Ceres come as wheels; `available` says which are there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from adjuster_windows import Answer, Window

from vo_stream.adjust.factors import MOTION_HUBER
from vo_stream.adjust.solver import (
    HUBER,
    Indices,
    Problem,
    Solution,
    State,
    compile_solver,
    solve,
)
from vo_stream.se3 import SE3, Array

NAMES = ("ours", "gtsam", "ceres")

MAX_ITERATIONS = 10
RELATIVE_TOLERANCE = 1e-4
"""What ends a solve: so many iterations, or a change of the cost by less than this part of it."""

KNOWN = 1e10
"""Information of what is not sought here: the scale of the motions."""

UNKNOWN = 1e-9
"""Information of our prior on inverse depths: the others have none."""

HELD_STD = 1e-5
"""Of the first keyframe, for solvers that hold it by a prior; metres and radians."""

VAGUE_STD = 100.0
"""Metres: of the prior on landmarks, for the solver that needs one."""


class Solver(Protocol):
    """`prepare` turns a window into the solver's own terms, `run` solves, `read` gives the answer.

    `alone`: whether a window is all it needs; otherwise it must get every window of a recording.
    """

    name: str
    alone: bool

    def prepare(self, window: Window) -> Any:
        """Return the job for `run`."""

    def run(self, job: Any) -> Any:
        """Solve; return what `read` takes. This is what is timed."""

    def read(self, window: Window, done: Any) -> Answer:
        """Return the answer."""


class Ours:
    """vo_stream.adjust.solver, the scale of the motions as good as known to be 1, the bend 0."""

    name, alone = "vo_stream", True

    def __init__(self) -> None:
        compile_solver()

    def prepare(self, window: Window) -> tuple[Problem, State]:
        """Write the landmarks in their anchors' cameras."""
        anchors, count = window.anchors, len(window.positions)
        q = np.einsum(
            "nji,nj->ni", window.rotations[anchors], window.points - window.positions[anchors]
        )
        points = np.concatenate([q[:, :2], np.ones((len(q), 1))], axis=1) / q[:, 2:]
        problem = Problem(
            held=1,
            motions=window.motions,
            motion_information=np.eye(6) / window.motion_stds[:, None, :] ** 2,
            walk_information=np.full(count, KNOWN),
            log_scale_prior=0.0,
            anchors=anchors,
            depth_prior=points[:, 2].copy(),
            depth_information=UNKNOWN,
            first=window.first,
            keyframes=window.keyframes,
            plane=window.plane,
            weights=np.full(len(window.plane), 1.0 / window.std**2),
        )
        return problem, State(window.rotations, window.positions, np.zeros(count), points)

    def run(self, job: tuple[Problem, State]) -> Solution:
        """Solve."""
        return solve(*job, MAX_ITERATIONS)

    def read(self, window: Window, done: Solution) -> Answer:
        """Bring the landmarks back to the map, out of their anchors' cameras before the solve."""
        anchors, points = window.anchors, done.state.points
        rays = np.concatenate([points[:, :2], np.ones((len(points), 1))], axis=1)
        xyz = np.einsum("nij,nj->ni", window.rotations[anchors], rays)
        xyz += points[:, 2:] * window.positions[anchors]
        homogeneous = np.concatenate([xyz, points[:, 2:]], axis=1)
        return Answer(done.state.rotations, done.state.positions, homogeneous, done.iterations)


class GtsamTerms:
    """A window in GTSAM's terms: Point3 landmarks, projection factors with Huber's loss."""

    def __init__(self) -> None:
        self.gtsam: Any = importlib.import_module("gtsam")
        gtsam = self.gtsam
        self.camera = gtsam.Cal3_S2(1.0, 1.0, 0.0, 0.0, 0.0)
        self.held = gtsam.noiseModel.Isotropic.Sigma(6, HELD_STD)
        self.parameters = gtsam.LevenbergMarquardtParams()
        self.parameters.setRelativeErrorTol(RELATIVE_TOLERANCE)
        self.parameters.setAbsoluteErrorTol(0.0)
        self.parameters.setMaxIterations(MAX_ITERATIONS)

    def noise(self, std: float) -> Any:
        """Return the noise of a sighting."""
        return self.robust(self.gtsam.noiseModel.Isotropic.Sigma(2, std), HUBER)

    def robust(self, noise: Any, bound: float) -> Any:
        """Return a noise with Huber's loss from `bound` standard deviations on."""
        model = self.gtsam.noiseModel
        return model.Robust.Create(model.mEstimator.Huber.Create(bound), noise)

    def pose(self, rotation: Array, position: Array) -> Any:
        """Return a Pose3."""
        return self.gtsam.Pose3(self.gtsam.Rot3(rotation), position)

    def motion(self, window: Window, k: int) -> Any:
        """Return the factor of the motion that leads to keyframe `k` of the window."""
        gtsam, x = self.gtsam, self.keyframe
        stds = np.roll(window.motion_stds[k], 3)  # rotation first
        return gtsam.BetweenFactorPose3(
            x(window, k - 1),
            x(window, k),
            self.pose(window.motions[k, :, :3], window.motions[k, :, 3]),
            self.robust(gtsam.noiseModel.Diagonal.Sigmas(stds), MOTION_HUBER),
        )

    def keyframe(self, window: Window, k: int) -> int:
        """Return the key of keyframe `k` of the window."""
        return int(self.gtsam.symbol("x", window.number + k))

    def sightings(self, graph: Any, window: Window, which: Indices) -> None:
        """Add the sightings of these numbers."""
        factor, noise = self.gtsam.GenericProjectionFactorCal3_S2, self.noise(window.std)
        x = [self.keyframe(window, k) for k in range(len(window.positions))]
        points = [self.gtsam.symbol("l", i) for i in window.ids.tolist()]
        landmarks, keyframes = window.landmarks.tolist(), window.keyframes.tolist()
        for m in which.tolist():
            pose, point = x[keyframes[m]], points[landmarks[m]]
            graph.add(factor(window.plane[m], noise, pose, point, self.camera, False, False))

    def answer(self, window: Window, values: Any, iterations: int) -> Answer:
        """Read the window's unknowns."""
        keys = [self.keyframe(window, k) for k in range(len(window.positions))]
        poses = [values.atPose3(key) for key in keys]
        points = np.array([values.atPoint3(self.gtsam.symbol("l", i)) for i in window.ids.tolist()])
        return Answer(
            np.array([pose.rotation().matrix() for pose in poses]),
            np.array([pose.translation() for pose in poses]),
            np.concatenate([points, np.ones((len(points), 1))], axis=1),
            iterations,
        )


class GtsamBatch(GtsamTerms):
    """GTSAM's LevenbergMarquardtOptimizer; the graph is built anew for each window.

    Landmarks are eliminated first, as by the Schur complement.
    """

    name, alone = "GTSAM LM", True

    def prepare(self, window: Window) -> Any:
        """Build graph and start."""
        gtsam = self.gtsam
        graph, values, ordering = gtsam.NonlinearFactorGraph(), gtsam.Values(), gtsam.Ordering()
        for i, point in zip(window.ids.tolist(), window.points, strict=True):
            values.insert(gtsam.symbol("l", i), point)
            ordering.push_back(gtsam.symbol("l", i))
        for k in range(len(window.positions)):
            pose = self.pose(window.rotations[k], window.positions[k])
            values.insert(self.keyframe(window, k), pose)
            ordering.push_back(self.keyframe(window, k))
            if k == 0:
                key = self.keyframe(window, 0)
                graph.add(gtsam.PriorFactorPose3(key, pose, self.held))
            else:
                graph.add(self.motion(window, k))
        self.sightings(graph, window, np.arange(len(window.plane)))
        return graph, values, ordering

    def run(self, job: Any) -> Any:
        """Solve."""
        graph, values, ordering = job
        optimizer = self.gtsam.LevenbergMarquardtOptimizer(graph, values, ordering, self.parameters)
        return optimizer.optimize(), optimizer.iterations()

    def read(self, window: Window, done: Any) -> Answer:
        """Return the answer."""
        return self.answer(window, *done)


class GtsamFixedLag(GtsamTerms):
    """GTSAM's BatchFixedLagSmoother: what leaves the window is marginalised, not held.

    Without a vague prior on landmarks it soon fails where sightings are wrong; with it, later.
    """

    name, alone = "GTSAM fixed lag", False

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.smoother = self.gtsam.BatchFixedLagSmoother(float(lag), self.parameters)
        self.vague = self.gtsam.noiseModel.Isotropic.Sigma(3, VAGUE_STD)
        self.known: set[int] = set()
        self.keyframes = 0

    def prepare(self, window: Window) -> Any:
        """Build what the newest keyframe adds: it, and landmarks that are seen twice by now."""
        gtsam = self.gtsam
        graph, values, stamps = gtsam.NonlinearFactorGraph(), gtsam.Values(), {}
        newest = window.number + len(window.positions) - 1
        for number in range(self.keyframes, newest + 1):
            k = number - window.number
            key = self.keyframe(window, k)
            pose = self.pose(window.rotations[k], window.positions[k])
            values.insert(key, pose)
            stamps[key] = float(number)
            if number == 0:
                graph.add(gtsam.PriorFactorPose3(key, pose, self.held))
            else:
                graph.add(self.motion(window, k))
        fresh = np.array([i not in self.known for i in window.ids.tolist()])
        for n in np.flatnonzero(fresh):
            key = gtsam.symbol("l", int(window.ids[n]))
            values.insert(key, window.points[n])
            graph.add(gtsam.PriorFactorPoint3(key, window.points[n], self.vague))
        recent = window.number + window.keyframes >= self.keyframes
        which = np.flatnonzero(fresh[window.landmarks] | recent)
        self.sightings(graph, window, which)
        for m in which:  # the latest sighting of each is the last to be written
            key = gtsam.symbol("l", int(window.ids[window.landmarks[m]]))
            stamps[key] = float(window.number + window.keyframes[m])
        self.known.update(window.ids.tolist())
        self.keyframes = newest + 1
        return graph, values, stamps

    def run(self, job: Any) -> Any:
        """Add to the smoother."""
        return self.smoother.update(*job)

    def read(self, window: Window, done: Any) -> Answer:
        """Return the answer."""
        return self.answer(window, self.smoother.calculateEstimate(), done.getIterations())


class Ceres:
    """Ceres by pyceres, with the cost functions of pycolmap: quaternion and translation of
    camera_from_map, Point3 landmarks, derivatives by Ceres' automatic differentiation, Schur.
    """

    name, alone = "Ceres", True

    def __init__(self) -> None:
        self.ceres: Any = importlib.import_module("pyceres")
        self.colmap: Any = importlib.import_module("pycolmap")
        self.costs: Any = importlib.import_module("pycolmap.cost_functions")
        if self.sighting(np.zeros(2), np.eye(2)).parameter_block_sizes() != [4, 3, 3, 4]:
            raise ImportError("pycolmap 4 wants a manifold that pyceres does not have")

    def sighting(self, plane: Array, covariance: Array) -> Any:
        """Return the cost of a sighting."""
        return self.costs.ReprojErrorCost(self.colmap.CameraModelId.PINHOLE, covariance, plane)

    def prepare(self, window: Window) -> Any:
        """Build the problem; Ceres writes to the arrays that are returned with it."""
        ceres, colmap = self.ceres, self.colmap
        poses = [
            SE3.from_rotation_translation(r, t).inverse()
            for r, t in zip(window.rotations, window.positions, strict=True)
        ]
        quaternions = [pose.quaternion_xyzw.copy() for pose in poses]
        translations = [np.array(pose.translation) for pose in poses]
        points = list(window.points.copy())
        camera = np.array([1.0, 1.0, 0.0, 0.0])
        problem = ceres.Problem()
        huber, motion_huber = ceres.HuberLoss(HUBER), ceres.HuberLoss(MOTION_HUBER)
        covariance = np.eye(2) * window.std**2
        landmarks, keyframes = window.landmarks.tolist(), window.keyframes.tolist()
        for n, k, plane in zip(landmarks, keyframes, window.plane, strict=True):
            blocks = [quaternions[k], translations[k], points[n], camera]
            problem.add_residual_block(self.sighting(plane, covariance), huber, blocks)
        for k in range(1, len(poses)):
            motion = SE3.from_matrix(window.motions[k]).inverse()
            prior = colmap.Rigid3d(colmap.Rotation3d(motion.quaternion_xyzw), motion.translation)
            spread = np.diag(np.roll(window.motion_stds[k], 3) ** 2)  # rotation first
            blocks = [quaternions[k], translations[k], quaternions[k - 1], translations[k - 1]]
            problem.add_residual_block(
                self.costs.RelativePosePriorCost(spread, prior), motion_huber, blocks
            )
        manifold = ceres.EigenQuaternionManifold()
        for quaternion in quaternions:
            problem.set_manifold(quaternion, manifold)
        for held in (camera, quaternions[0], translations[0]):
            problem.set_parameter_block_constant(held)
        return problem, quaternions, translations, points, (camera, manifold, huber, motion_huber)

    def run(self, job: Any) -> Any:
        """Solve."""
        options, summary = self.ceres.SolverOptions(), self.ceres.SolverSummary()
        options.linear_solver_type = self.ceres.LinearSolverType.DENSE_SCHUR
        options.max_num_iterations = MAX_ITERATIONS
        options.function_tolerance = RELATIVE_TOLERANCE
        options.gradient_tolerance = options.parameter_tolerance = 0.0
        options.num_threads = 1
        options.logging_type = self.ceres.LoggingType.SILENT
        self.ceres.solve(options, job[0], summary)
        return job, summary

    def read(self, window: Window, done: Any) -> Answer:
        """Return the answer."""
        (_, quaternions, translations, points, _), summary = done
        poses = [
            SE3.from_quaternion_xyzw(q, t).inverse()
            for q, t in zip(quaternions, translations, strict=True)
        ]
        return Answer(
            np.array([pose.rotation for pose in poses]),
            np.array([pose.translation for pose in poses]),
            np.concatenate([np.array(points), np.ones((len(points), 1))], axis=1),
            summary.num_successful_steps + summary.num_unsuccessful_steps - 1,  # the start counts
        )


INSTALL = {"gtsam": "pip install gtsam", "ceres": "pip install pyceres 'pycolmap==3.13.*'"}


def available(
    names: Sequence[str], size: int, report: Callable[[str], None]
) -> list[Callable[[], Solver]]:
    """Return what makes the solvers of these names, for windows of `size` keyframes.

    Of those that are not installed `report` is told how they are.
    """
    makers: dict[str, list[Callable[[], Solver]]] = {
        "ours": [Ours],
        "gtsam": [GtsamBatch, lambda: GtsamFixedLag(size - 1)],
        "ceres": [Ceres],
    }
    found = []
    for name in names:
        try:
            for maker in makers[name]:
                maker()
        except (ImportError, AttributeError) as error:
            report(f"{name} is left out ({error}): {INSTALL.get(name, 'pip install -e .')}")
        else:
            found += makers[name]
    return found
