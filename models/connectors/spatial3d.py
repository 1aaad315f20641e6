"""A stack of slices, or several views, as one volume: patches know their place in three dimensions
and are averaged within voxels (LLaVA-3D, Zhu et al. 2024, sections 3.1 and 3.2).

A two-layer MLP turns a patch's place (row, column, slice) into what is added to its projected
feature; then the patches of a voxel become one token, so that a stack costs a fraction of its
images. With `places = "order"` those are of the order of the images, as if neighbouring slices lay
as far apart as neighbouring patches; with "geometry" they are where a case's depth and cameras, or
else its DICOM headers, say that they are (models.parts.places), and of their order where nothing
says it. A server is told of neither, so what trains so is not exported.

Departs from LLaVA-3D: voxels are of neighbours in row, column and order, wherever these lie, since
a prompt must hold as many tokens as there will be before any place is known; the place is added
behind the projection, not before it; and a single image is a stack of one, with voxels and the
places of its grid, where LLaVA-3D leaves it as LLaVA would read it: so every weight learns from
single images too, and those are nearly all that there is to learn from here.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    edge: PositiveInt = 2  # of a voxel, in patches
    depth: PositiveInt = 2  # of a voxel, in slices
    hidden: PositiveInt = 576  # of the MLP that reads a place
    gain: float = 0.1  # first scale of the output: about that of the text's own embeddings
    places: Literal["order", "geometry"] = "order"


class Connector(nn.Module):
    stacks: ClassVar = True

    def __init__(self, config: Config, vision_dim: int, text_dim: int):
        super().__init__()
        self.by_geometry = config.places == "geometry"
        self.voxel = (config.depth, config.edge, config.edge)
        self.project = nn.Sequential(nn.LayerNorm(vision_dim), nn.Linear(vision_dim, text_dim))
        self.place = nn.Sequential(
            nn.Linear(3, config.hidden), nn.GELU(), nn.Linear(config.hidden, text_dim)
        )
        self.norm = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((text_dim,), config.gain))

    def num_tokens(self, patches: int, images: int = 1) -> int:
        side = math.isqrt(patches)
        sizes = zip((images, side, side), self.voxel, strict=True)
        return math.prod(math.ceil(size / edge) for size, edge in sizes)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """[b, images, patches, vision_dim], [images, patches, 3] → [b, tokens, text_dim], the
        voxels of the first slices first.

        Raises:
            ValueError: the places are not those of these images' patches.
        """
        images, patches = features.shape[1:3]
        if positions.shape != (images, patches, 3):
            raise ValueError(
                f"spatial3d: {images} images of {patches} patches need places "
                f"[{images}, {patches}, 3] (row, column, slice), not {list(positions.shape)}"
            )
        placed = self.project(features) + self.place(positions.to(features.dtype))
        side = math.isqrt(patches)
        volume = placed.unflatten(2, (side, side)).movedim(-1, 1).float()
        # A voxel at the end of the volume is the mean of the patches that there are.
        voxel = tuple(map(min, self.voxel, volume.shape[2:]))
        voxels = functional.avg_pool3d(volume, voxel, ceil_mode=True, count_include_pad=False)
        return self.norm(voxels.flatten(2).transpose(1, 2).to(placed.dtype)) * self.gain
