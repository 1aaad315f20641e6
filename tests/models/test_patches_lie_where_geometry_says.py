"""Depth, cameras and DICOM's geometry → places: held to cases worked by hand and to nibabel."""

from typing import Any

import pydicom
import pytest
import torch
from nibabel.nicom.dicomwrappers import wrapper_from_data
from pydicom.data import get_testdata_file
from torch import Tensor

from models.positions import by_camera, by_dicom, grid_positions, stack_positions

AXIAL = [1.0, 0, 0, 0, 1, 0]
OBLIQUE = [0.8, 0.36, 0.48, 0, 0.8, -0.6]


def told(*rows: list[float], images: int = 1) -> list[Tensor]:
    """What is told of so many images alike."""
    return [torch.tensor([row] * images, dtype=torch.float64) for row in rows]


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_slices_a_patch_apart_have_the_places_of_their_order(orientation: list[float]) -> None:
    """64 pixels of 0.5 mm in four patches a side: slices 8 mm apart, wherever the stack lies."""
    turned, spacing, size = told(orientation, [0.5, 0.5], [64, 64], images=3)
    normal = torch.linalg.cross(turned[:, :3], turned[:, 3:])
    position = torch.tensor([-31.0, 7, 402]) + 8 * torch.arange(3)[:, None] * normal

    found = by_dicom(position, turned, spacing, size, side=4)

    torch.testing.assert_close(found, stack_positions(grid_positions(4), 3))


def test_the_equation_by_hand() -> None:
    """Two rows 3 mm apart of four columns 1 mm apart, so 6 mm high and 4 wide, in two patches a
    side. Columns are counted along the patient's y and rows along z, so slices along x. The second
    image lies 3 mm further in x and 1.5 mm in y, which are a half and a quarter of 6 mm."""
    orientation, spacing, size = told([0, 1, 0, 0, 0, 1], [3, 1], [2, 4], images=2)
    position = torch.tensor([[10.0, 20, 30], [13, 21.5, 30]])
    left, right = 1 / 2 - 1 / 6, 1 / 2 + 1 / 6

    found = by_dicom(position, orientation, spacing, size, side=2)

    first = [[0.25, left, 0], [0.25, right, 0], [0.75, left, 0], [0.75, right, 0]]
    second = [[row, column + 0.25, 0.5] for row, column, _ in first]
    torch.testing.assert_close(found, torch.tensor([first, second]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PixelSpacing": [0.7, 1.9]},
        {"PixelSpacing": [0.7, 1.9], "Rows": 96, "ImageOrientationPatient": OBLIQUE},
    ],
)
def test_two_real_slices_lie_as_nibabel_has_them(changes: dict[str, Any]) -> None:
    """pydicom's own CT, and the same again somewhere else: every distance between two patches, in
    the slice's longer side. nibabel's affine takes rows and columns to mm."""
    headers = [pydicom.dcmread(str(get_testdata_file("CT_small.dcm"))) for _ in range(2)]
    for header in headers:
        for name, value in changes.items():
            setattr(header, name, value)
    headers[1].ImagePositionPatient = [-140.0, -171.5, -60.25]
    grid, points = grid_positions(4).double(), []
    for header in headers:
        affine = torch.tensor(wrapper_from_data(header).affine)
        size = grid.new_tensor([header.Rows, header.Columns])
        points.append((grid * size - 0.5) @ affine[:3, :2].T + affine[:3, 3])
    longer = (affine[:3, :2].norm(dim=0) * size).max()

    found = by_dicom(
        *(
            torch.tensor([[float(value) for value in header[tag]] for header in headers])
            for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        ),
        size.expand(2, -1),
        side=4,
    )

    expected, flat = torch.cat(points), found.flatten(0, 1).double()
    torch.testing.assert_close(
        torch.cdist(flat, flat), torch.cdist(expected, expected) / longer, rtol=1e-5, atol=1e-5
    )


WALL = torch.full((1, 2, 2), 4.0)
INTRINSICS = [[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]
HERE = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
# Turned right by a quarter: it looks along x, and its own right is where the world's near is.
ASIDE = [[0.0, 0, 1, -3], [0, 1, 0, 0], [-1, 0, 0, 5], [0, 0, 0, 1]]


def test_a_wall_straight_ahead_is_a_grid() -> None:
    """An image of 30 x 20 pixels that are not square to the lens, but show a square of it."""
    depth = torch.full((1, 20, 30), 1.7)
    intrinsics = torch.tensor([[[60.0, 0, 14.5], [0, 40, 9.5], [0, 0, 1]]])

    found = by_camera(depth, intrinsics, torch.tensor([HERE]), side=4)

    torch.testing.assert_close(found, stack_positions(grid_positions(4), 1))


def test_back_projection_by_hand() -> None:
    """Two pixels a side, a quarter of the depth to the left and right. At depth 4 the first camera
    shows 4 x 4, about (0, 0, 4). The second, at (-3, 0, 5), sees at depth 2 what lies at x = -1,
    at y = -0.5 and 0.5, and from left to right at z = 5.5 and 4.5."""
    depth = torch.cat([WALL, WALL / 2])
    intrinsics = torch.tensor([INTRINSICS] * 2)

    found = by_camera(depth, intrinsics, torch.tensor([HERE, ASIDE]), side=2)

    first = [[0.25, 0.25, 0], [0.25, 0.75, 0], [0.75, 0.25, 0], [0.75, 0.75, 0]]
    second = [[0.375, 0.25, 0.375], [0.375, 0.25, 0.125]]
    second += [[0.625, 0.25, 0.375], [0.625, 0.25, 0.125]]
    torch.testing.assert_close(found, torch.tensor([first, second]))


def test_where_the_world_begins_does_not_matter() -> None:
    depth, intrinsics = torch.cat([WALL, WALL / 2]), torch.tensor([INTRINSICS] * 2)
    poses, moved = torch.tensor([HERE, ASIDE]), torch.tensor(ASIDE)

    found = by_camera(depth, intrinsics, moved @ poses, side=2)

    torch.testing.assert_close(found, by_camera(depth, intrinsics, poses, side=2))


def test_depth_is_taken_where_a_patch_has_its_centre() -> None:
    """Of three pixels a side the one in the middle, whatever is around it."""
    depth = torch.zeros(1, 3, 3)
    depth[0, 1, 1] = 2

    found = by_camera(depth, torch.tensor([INTRINSICS]), torch.tensor([HERE]), side=1)

    torch.testing.assert_close(found, torch.tensor([[[0.5, 0.5, 0.0]]]))
    with pytest.raises(ValueError, match="no depth where a patch has its centre: fill"):
        by_camera(depth, torch.tensor([INTRINSICS]), torch.tensor([HERE]), side=3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"orientation": [1, 0, 0, 0.1, 1, 0]}, "Orientation .* holds no directions"),
        ({"orientation": [0, 0, 0, 0, 0, 0]}, "Orientation .* holds no directions"),
        ({"spacing": [0.5, 0]}, "Pixel Spacing is missing or not above zero"),
        ({"spacing": [-0.5, 0.5]}, "Pixel Spacing is missing or not above zero"),
        ({"size": [64, 0]}, "not above zero"),
    ],
)
def test_a_header_without_sense_is_refused(changes: dict[str, list[float]], says: str) -> None:
    sane = {"orientation": AXIAL, "spacing": [0.5, 0.5], "size": [64, 64]}
    position, orientation, spacing, size = told([0, 0, 0], *(sane | changes).values())

    with pytest.raises(ValueError, match=says):
        by_dicom(position, orientation, spacing, size, side=4)


@pytest.mark.parametrize(
    ("intrinsics", "pose", "says"),
    [
        ([[0.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]], HERE, "intrinsics must be"),
        ([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 2]], HERE, "intrinsics must be"),
        (INTRINSICS, [[2.0, 0, 0, 0], *HERE[1:]], "a pose must be a rotation and a translation"),
        (INTRINSICS, [*HERE[:3], [0.0, 0, 1, 1]], "a pose must be a rotation and a translation"),
        (INTRINSICS, [[-1.0, 0, 0, 0], *HERE[1:]], "a pose must not mirror"),
    ],
)
def test_a_camera_that_is_none_is_refused(
    intrinsics: list[list[float]], pose: list[list[float]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        by_camera(WALL, torch.tensor([intrinsics]), torch.tensor([pose]), side=2)
