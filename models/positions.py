"""Where a patch lies in its image, and in a stack of images."""

import math

import torch
from torch import Tensor

FOURIER_DIM = 16  # of a place in an image
STACK_FOURIER_DIM = 24  # of one in a stack
ROUNDED = 0.01  # by how much directions may miss being at right angles and 1 long


def grid_positions(side: int) -> Tensor:
    """Centres of a side x side grid, rows first: [side², 2] as (row, column) in 0..1."""
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


def stack_positions(grid: Tensor, images: int) -> Tensor:
    """The places of so many images' patches on `grid` [patches, 2], one image behind the other:
    [images, patches, 3] as (row, column, slice). Slices lie as far apart as patches do.
    """
    depth = torch.arange(images, dtype=grid.dtype, device=grid.device) / math.isqrt(len(grid))
    slices = depth[:, None, None].expand(-1, len(grid), 1)
    return torch.cat([grid.expand(images, -1, -1), slices], dim=-1)


def by_camera(depth: Tensor, intrinsics: Tensor, pose: Tensor, side: int) -> Tensor:
    """The places of patches that a camera saw, [images, side², 3], as `_seen_from_first` tells
    them: R · (d · K⁻¹ [u, v, 1]) + t at their centres (LLaVA-3D, Zhu et al. 2024, section 3.1).

    `depth` [images, rows, columns] is along the camera's axis, in the unit of its pose, and is
    taken of the pixel in which a patch has its centre. `intrinsics` [images, 3, 3] are in pixels,
    (0, 0) being the middle of the first; `pose` [images, 4, 4] turns camera into world.

    Raises:
        ValueError: these are no camera's, or there is no depth where a patch has its centre.
    """
    depth, intrinsics, pose = depth.double(), intrinsics.double(), pose.double()
    size = depth.new_tensor([depth.shape[2], depth.shape[1]])
    focal = intrinsics.diagonal(dim1=1, dim2=2)[:, :2]
    last = intrinsics.new_tensor([0, 0, 1])
    if not ((focal > 0).all() and intrinsics.isfinite().all() and (intrinsics[:, 2] == last).all()):
        raise ValueError("intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels")
    turn, at = pose[:, :3, :3], pose[:, :3, 3]
    last = pose.new_tensor([0, 0, 0, 1])
    if not (_are_directions(turn) and pose.isfinite().all() and (pose[:, 3] == last).all()):
        raise ValueError("a pose must be a rotation and a translation, above 0, 0, 0, 1")
    if not (turn.det() > 0).all():
        raise ValueError("a pose must not mirror: turn its axes to right, down, away from the lens")
    u, v = (grid_positions(side).double().flip(-1) * size).unbind(-1)
    seen = depth[:, v.long(), u.long()]
    if not ((seen > 0) & seen.isfinite()).all():
        raise ValueError("there is no depth where a patch has its centre: fill the map's holes")
    rays = intrinsics.inverse() @ torch.stack([u - 0.5, v - 0.5, torch.ones_like(u)])
    points = turn @ (seen[:, None] * rays) + at[..., None]
    # Of a camera the first axis points right, the second down.
    down_right_away = turn[0][:, [1, 0, 2]]
    return _seen_from_first(points.mT, down_right_away, seen[0].mean() * (size / focal[0]).max())


def by_dicom(
    position: Tensor, orientation: Tensor, spacing: Tensor, size: Tensor, side: int
) -> Tensor:
    """The places of patches in the patient, [images, side², 3], as `_seen_from_first` tells them
    (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1).

    `position` [images, 3] is that of the middle of the first pixel, in mm; `orientation`
    [images, 6] the direction in which columns are counted, then that of rows; `spacing`
    [images, 2] the distance between rows, then between columns, in mm; `size` [images, 2] the
    number of rows and columns, which patches part evenly.

    Raises:
        ValueError: directions that are none, pixels of no size.
    """
    position, orientation, spacing = position.double(), orientation.double(), spacing.double()
    axes = orientation.unflatten(1, (2, 3)).flip(1).mT  # of rows, then of columns: [images, 3, 2]
    if not _are_directions(axes):
        raise ValueError("(0020,0037) Image Orientation (Patient) holds no directions")
    if not ((spacing * size > 0) & spacing.isfinite()).all():
        raise ValueError("(0028,0030) Pixel Spacing is missing or not above zero")
    pixels = grid_positions(side).double() * size[:, None] - 0.5  # [images, side², 2]
    points = position[:, None] + (pixels * spacing[:, None]) @ axes.mT
    normal = torch.linalg.cross(axes[0, :, 1], axes[0, :, 0])
    return _seen_from_first(
        points, torch.stack([*axes[0].T, normal], dim=1), (size * spacing)[0].max()
    )


def _seen_from_first(points: Tensor, axes: Tensor, extent: Tensor) -> Tensor:
    """Points in space [images, patches, 3] as (row, column, slice) along the `axes` of the first
    image, the columns of [3, 3]; what it shows is `extent` wide, or high where that is more.

    That becomes 1, and its middle (0.5, 0.5, 0): so square slices that lie a patch apart have the
    places of `stack_positions`, and of slices that are longer than wide the columns lie closer
    about the middle. What lies before the first slice is below 0. Where the patient or the camera
    stood, and how large in mm anything is, is not told.
    """
    middle = torch.tensor([0.5, 0.5, 0.0], dtype=points.dtype)
    return ((points - points[0].mean(0)) @ axes / extent + middle).float()


def _are_directions(axes: Tensor) -> bool:
    """Whether the columns of [images, 3, n] are 1 long and at right angles; not, if any is NaN."""
    products = axes.mT @ axes
    right = torch.eye(products.shape[-1], dtype=products.dtype)
    return bool(((products - right).abs() <= ROUNDED).all())


def fourier(positions: Tensor) -> Tensor:
    """Positions in 0..1, [patches, n] → sines and cosines of 1, 2, 4, 8 half turns [patches, 8n]"""
    # In float32 whatever the default: vLLM builds its models with bfloat16 as the default.
    octaves = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float32, device=positions.device)
    turns = positions[..., None] * (torch.pi * octaves)
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2)
