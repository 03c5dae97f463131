"""The ego-motion layer: what it recovers, how well it knows it, and what cannot break it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vo_stream.net import ego_motion
from vo_stream.net.ego_motion import (
    LOG_INVERSE_DEPTH_RANGE,
    EgoMotion,
    TwoView,
    guess_ego_motion,
    rigid_target,
    solve_ego_motion,
)
from vo_stream.net.rigid import (
    DAMPING,
    hat,
    moved,
    rotation_from,
    solve_symmetric,
    twist_from_identity,
)

FOCAL_PX = 400.0
TWIST = (0.1, 0.02, 0.4, 0.01, 0.03, -0.02)
FLOW_STD_PX, PRIOR_STD, CARRIED_STD = 0.3, 0.3, 0.2
HEIGHT, WIDTH = 12, 16


class Scene:
    """A world 3 to 20 m deep, seen twice; all is exact and in float64."""

    def __init__(
        self,
        batch: int = 1,
        twist: tuple[float, ...] = TWIST,
        height: int = HEIGHT,
        width: int = WIDTH,
    ) -> None:
        generator = torch.Generator().manual_seed(5)
        y, x = torch.meshgrid(
            torch.linspace(-0.4, 0.4, height), torch.linspace(-0.8, 0.8, width), indexing="ij"
        )
        depth = 3.0 + 17.0 * torch.rand(height * width, generator=generator).double()
        self.rays = torch.stack([x, y]).double().flatten(1).expand(batch, 2, -1)
        self.log_depth = -depth.log().expand(batch, 1, -1)
        error = torch.tensor(twist, dtype=torch.float64).expand(batch, 6)
        self.rotation, self.translation = rotation_from(error[:, 3:]), error[:, :3]
        rays = torch.cat([self.rays, torch.ones_like(self.rays[:, :1])], dim=1)
        point = self.rotation @ rays + self.log_depth.exp() * self.translation[..., None]
        self.target = point[:, :2] / point[:, 2:]
        self.carried = self.log_depth - point[:, 2:].log()

    def views(self) -> TwoView:
        """Return what two frames say, without any noise."""
        one = torch.ones_like(self.log_depth)
        zero = torch.zeros_like(one)
        return TwoView(
            self.rays,
            self.target,
            torch.cat([one, zero, one], dim=1) * (FOCAL_PX / FLOW_STD_PX) ** 2,
            self.log_depth,
            one / PRIOR_STD**2,
            self.carried,
            one / CARRIED_STD**2,
        )

    def noisy(self, generator: torch.Generator) -> TwoView:
        """Return what two frames say, with as much noise as they admit."""
        target, prior, carried = (
            torch.randn(values.shape, generator=generator, dtype=torch.float64)
            for values in (self.target, self.log_depth, self.carried)
        )
        return self.views()._replace(
            target=self.target + target * FLOW_STD_PX / FOCAL_PX,
            log_depth=self.log_depth + prior * PRIOR_STD,
            carried=self.carried + carried * CARRIED_STD,
        )

    def error(self, found: EgoMotion) -> Tensor:
        """Return the error twist (batch, 6): true = found @ exp(error)."""
        back = found.rotation.transpose(1, 2)
        shift = (back @ (self.translation - found.translation)[..., None])[..., 0]
        turn = twist_from_identity(back @ self.rotation, shift)[:, 3:]
        return torch.cat([shift, turn], dim=1)


def variance(found: EgoMotion) -> Tensor:
    return torch.diagonal(found.covariance, dim1=1, dim2=2)


def all_finite(tensors: tuple[Tensor, ...]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)


FAR = (-0.6, 0.3, -1.0, -0.1, 0.2, 0.15)
"""A motion of a third of the nearest depth: more than the iterations quite undo."""


@pytest.mark.parametrize(("twist", "within"), [(TWIST, 1e-5), ((0.0,) * 6, 1e-5), (FAR, 1e-3)])
def test_an_exact_flow_gives_the_exact_motion_and_depths(
    twist: tuple[float, ...], within: float
) -> None:
    scene = Scene(twist=twist)
    found = solve_ego_motion(scene.views())
    assert scene.error(found).abs().max() < within
    assert (found.log_depth - scene.log_depth).abs().max() < 30.0 * within
    assert found.trust.min() > 1.0 - 100.0 * within


def test_carried_depths_correct_a_prior_that_knows_nothing() -> None:
    scene = Scene()
    wrong = scene.log_depth + 0.4 * torch.sin(torch.arange(HEIGHT * WIDTH))
    views = scene.views()
    views = views._replace(
        log_depth=wrong, log_depth_information=1e-6 * views.log_depth_information
    )
    found = solve_ego_motion(views)
    assert scene.error(found).abs().max() < 1e-5
    assert (found.log_depth - scene.log_depth).abs().max() < 1e-5


def test_without_carried_depths_the_prior_gives_the_scale() -> None:
    scene = Scene()
    views = scene.views()
    views = views._replace(
        log_depth=scene.log_depth - 0.2, carried_information=0.0 * views.carried_information
    )
    found = solve_ego_motion(views)  # a world that is larger by exp(0.2)
    ratio = found.translation.norm() / scene.translation.norm()
    assert ratio.log() == pytest.approx(0.2, abs=1e-3)


def not_robust(monkeypatch: pytest.MonkeyPatch, refining: int = 3) -> None:
    monkeypatch.setattr(ego_motion, "FROM_NOTHING", (1e12,) * 4)
    monkeypatch.setattr(ego_motion, "REFINING", (1e12,) * refining)


def few_cells() -> list[Tensor]:
    clean = Scene().noisy(torch.Generator().manual_seed(1))
    return [x[..., ::32].clone().requires_grad_() for x in clean]


def motion_and_depth(*views: Tensor) -> tuple[Tensor, ...]:
    found = solve_ego_motion(TwoView(*views))
    return found.rotation, found.translation, found.log_depth, 0.5 * variance(found).log()


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither the robust weights nor the guess are differentiated: the first are held at 1, the
    # second is forgotten.
    not_robust(monkeypatch, refining=6)
    assert torch.autograd.gradcheck(motion_and_depth, few_cells(), atol=1e-4, rtol=1e-3)


def test_the_last_iterations_have_the_gradient_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = few_cells()

    def gradient(squares: tuple[float, ...]) -> Tensor:
        monkeypatch.setattr(ego_motion, "REFINING", squares)
        found = motion_and_depth(*inputs)
        total = sum((x.square().sum() for x in found[1:3]), start=found[0][0, 0, 2])
        return torch.cat([x.flatten() for x in torch.autograd.grad(total, inputs)])

    last = ego_motion.REFINING
    whole = gradient((last[0],) * 6 + last[1:])
    assert (gradient(last) - whole).norm() < 0.06 * whole.norm()


@pytest.mark.parametrize(("robust", "tolerance"), [(True, 0.2), (False, 0.1)])
def test_the_covariance_is_that_of_many_trials(
    robust: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not robust:
        not_robust(monkeypatch)
    scene = Scene(batch=600)
    found = solve_ego_motion(scene.noisy(torch.Generator().manual_seed(2)))
    errors = scene.error(found)
    std = errors.square().mean(0).sqrt()
    assert (variance(found).mean(0).sqrt() / std - 1.0).abs().max() < tolerance
    normalised = (errors[:, None] @ torch.linalg.solve(found.covariance, errors[..., None])).mean()
    assert normalised / 6.0 == pytest.approx(1.0, abs=2 * tolerance)


def test_each_cells_depth_is_as_good_as_it_says() -> None:
    scene = Scene(batch=50)
    found = solve_ego_motion(scene.noisy(torch.Generator().manual_seed(2)))
    squares = (found.log_depth - scene.log_depth).square() * found.log_depth_information
    assert 0.5 < squares.mean() < 1.5


def test_wrong_flows_are_not_trusted() -> None:
    scene = Scene(batch=40)
    generator = torch.Generator().manual_seed(3)
    clean = scene.noisy(generator)
    wrong = torch.rand(clean.carried.shape, generator=generator) < 0.2
    far = (torch.rand(clean.target.shape, generator=generator) * 40.0 - 20.0) / FOCAL_PX
    found = solve_ego_motion(
        clean._replace(target=torch.where(wrong, clean.target + far, clean.target))
    )
    assert found.trust[wrong].median() < 0.05
    assert found.trust[~wrong].median() > 0.7
    error = found.log_depth - scene.log_depth
    assert error[wrong].square().mean().sqrt() < 1.5 * PRIOR_STD, "the prior answers instead"
    assert (error.square() * found.log_depth_information)[wrong].mean() < 15.0
    mean_square = scene.error(found).square().mean(0)
    without = scene.error(solve_ego_motion(clean)).square().mean(0)
    assert (mean_square / without).sqrt().max() < 2.0


def test_a_guess_from_elsewhere_is_refined() -> None:
    scene, near = Scene(), Scene(twist=(0.12, 0.0, 0.38, 0.012, 0.028, -0.018))
    guess = guess_ego_motion(near.views())
    found = solve_ego_motion(scene.views(), guess)
    assert scene.error(found).abs().max() < 2e-4
    assert not any(x.requires_grad for x in guess_ego_motion(TwoView(*few_cells())))


def test_the_rigid_target_is_that_of_a_scene_at_rest() -> None:
    scene = Scene()
    wrong = scene.target.clone()
    wrong[..., 7] += 0.2  # what moves by itself
    guess = guess_ego_motion(scene.views()._replace(target=wrong))
    error = (rigid_target(scene.rays, guess) - scene.target).norm(dim=1)
    assert error.median() * FOCAL_PX < 0.02
    assert error[0, 7] * FOCAL_PX < 1.0
    assert guess.trust[0, 0, 7] < 0.01


def test_zero_weights_leave_a_cell_out() -> None:
    scene = Scene()
    views = scene.views()
    used = (torch.arange(HEIGHT * WIDTH) % 3 > 0).double()
    views = views._replace(
        target=views.target + (1.0 - used) * 0.1,
        information=views.information * used,
        carried_information=views.carried_information * used,
    )
    assert scene.error(solve_ego_motion(views)).abs().max() < 1e-5


def test_with_no_information_the_prior_answers() -> None:
    scene = Scene()
    views = scene.views()
    nothing = views._replace(
        information=0.0 * views.information, carried_information=0.0 * views.carried_information
    )
    found = solve_ego_motion(nothing)
    assert twist_from_identity(found.rotation, found.translation).abs().max() < 1e-3
    mean_depth = (2.0 * scene.log_depth).exp().mean() ** -0.5
    expected = torch.tensor([float(mean_depth) ** 2] * 3 + [1.0] * 3, dtype=torch.float64)
    torch.testing.assert_close(found.covariance[0], torch.diag(expected), rtol=1e-2, atol=1e-2)


def test_pure_rotation_shows_no_depth_and_no_translation() -> None:
    scene = Scene(twist=(0.0, 0.0, 0.0, 0.02, 0.05, -0.03))
    views = scene.views()
    views = views._replace(carried_information=0.0 * views.carried_information)
    found = solve_ego_motion(views)
    assert scene.error(found).abs().max() < 1e-5
    torch.testing.assert_close(found.log_depth_information, views.log_depth_information)


def stripes(views: TwoView) -> TwoView:
    """Edges of one direction only: they tell nothing of the motion along them."""
    rank_one = views.information[:, :1] * torch.tensor([1.0, 1.0, 1.0])[None, :, None]
    return views._replace(information=rank_one)


EXTREMES: dict[str, Callable[[TwoView], TwoView]] = {
    "as it is": lambda v: v,
    "no information": lambda v: v._replace(
        information=0.0 * v.information,
        log_depth_information=0.0 * v.log_depth_information,
        carried_information=0.0 * v.carried_information,
    ),
    "standing still": lambda v: v._replace(target=v.rays, carried=v.log_depth),
    "infinitely far": lambda v: v._replace(
        log_depth=0.0 * v.log_depth + LOG_INVERSE_DEPTH_RANGE[0],
        carried_information=0.0 * v.carried_information,
    ),
    "in your face": lambda v: v._replace(log_depth=0.0 * v.log_depth + LOG_INVERSE_DEPTH_RANGE[1]),
    "behind the camera": lambda v: v._replace(target=-v.target),
    "all to one point": lambda v: v._replace(target=0.0 * v.target),
    "out of the image": lambda v: v._replace(target=v.rays + 3.0),
    "far out, not seen": lambda v: v._replace(
        target=1e4 * v.target,
        information=0.0 * v.information,
        carried_information=0.0 * v.carried_information,
    ),
    "one cell": lambda v: v._replace(
        information=v.information * (torch.arange(v.information.shape[-1]) == 5)
    ),
    "edges": stripes,
    "depths that contradict": lambda v: v._replace(
        carried=-v.log_depth, carried_information=40.0 + 0.0 * v.carried
    ),
    "certain of everything": lambda v: v._replace(
        information=100.0 * v.information, log_depth_information=0.0 * v.log_depth + 400.0
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_nothing_breaks_it(name: str) -> None:
    views = EXTREMES[name](Scene(batch=2).views())
    inputs = TwoView(*[x.float().contiguous().requires_grad_() for x in views])
    found = solve_ego_motion(inputs)
    assert all_finite(found)
    assert variance(found).min() > 0.0
    low, high = LOG_INVERSE_DEPTH_RANGE
    assert found.log_depth.min() >= low
    assert found.log_depth.max() <= high
    total = found.rotation.sum() + found.translation.sum() + found.log_depth.sum()
    gradients = torch.autograd.grad(total, inputs)
    assert all_finite(gradients)


def test_what_edges_leave_open_is_not_taken_for_known() -> None:
    # In float32 the difference of two large sums would be, and where it is negative, no motion.
    scene = Scene(batch=40, height=24, width=80)
    generator = torch.Generator().manual_seed(0)
    views = stripes(scene.noisy(generator))
    strength = 10.0 ** (3.0 * torch.rand(40, 1, 1, generator=generator) - 1.0)
    views = views._replace(
        information=views.information * strength,
        carried_information=0.0 * views.carried_information,
    )
    found = EgoMotion(*[x.double() for x in solve_ego_motion(TwoView(*[x.float() for x in views]))])
    assert all_finite(found)
    assert variance(found).min() > 0.0
    sigmas = (scene.error(found) / variance(found).sqrt()).abs()
    assert sigmas.max() < 100.0


def test_solve_symmetric_solves() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 6, 9, generator=generator, dtype=torch.float64)
    scale = 10.0 ** torch.linspace(-4, 4, 6, dtype=torch.float64)
    matrix = (root @ root.transpose(1, 2)) * scale * scale[:, None]
    right = torch.randn(5, 6, 2, generator=generator, dtype=torch.float64)
    damped = matrix + DAMPING * torch.diag_embed(torch.diagonal(matrix, dim1=1, dim2=2))
    found = solve_symmetric(matrix, right)
    torch.testing.assert_close(found, torch.linalg.solve(damped, right), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.3, 3.0])
def test_rotations_are_exponentials(angle: float) -> None:
    vector = torch.tensor([[0.6, -0.64, 0.48]], dtype=torch.float64) * angle
    exact = torch.linalg.matrix_exp(hat(vector))
    torch.testing.assert_close(rotation_from(vector), exact, rtol=0.0, atol=1e-7)


def test_a_small_motion_and_back() -> None:
    twist = torch.tensor([TWIST], dtype=torch.float64)
    nowhere = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    rotation, translation = moved(*nowhere, twist)
    back = twist_from_identity(rotation, translation)
    torch.testing.assert_close(back[:, 3:], twist[:, 3:], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(translation, twist[:, :3])


def test_depths_carried_from_a_wrong_motion_are_forgotten() -> None:
    """They agree with a motion sideways where the camera went ahead, and they are sure of it."""
    scene = Scene(batch=2, height=16, width=24)
    views = scene.noisy(torch.Generator().manual_seed(1))
    rays = torch.cat([views.rays, torch.ones_like(views.rays[:, :1])], dim=1)
    seen = torch.cat([views.target, torch.ones_like(views.target[:, :1])], dim=1)
    sideways = torch.tensor([0.4, 0.0, 0.05], dtype=torch.float64)[None, :, None]
    across = torch.linalg.cross(sideways.expand_as(seen), seen, dim=1)
    parallax = (torch.linalg.cross(rays, seen, dim=1) * across).sum(1, keepdim=True)
    wrong = (parallax.abs() / across.square().sum(1, keepdim=True)).clamp(min=1e-2).log()
    sure = views.carried_information.clone()
    sure[1] *= 100.0
    carried = torch.cat([views.carried[:1], wrong[1:]])
    guess = guess_ego_motion(views._replace(carried=carried, carried_information=sure))
    assert guess.remembers.flatten().tolist() == [1.0, 0.0]
    for found in (guess.rotation[1], guess.rotation[0]):
        assert torch.linalg.matrix_norm(found - scene.rotation[0]) < 5e-3


def test_what_is_carried_and_right_is_kept() -> None:
    scene = Scene(batch=1)
    for seed in range(20):
        views = scene.noisy(torch.Generator().manual_seed(seed))
        assert guess_ego_motion(views).remembers.item() == 1.0
    nothing = views._replace(information=torch.zeros_like(views.information))
    assert guess_ego_motion(nothing).remembers.item() == 1.0
