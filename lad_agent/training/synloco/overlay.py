"""Blending a turned and scaled picture onto a board."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco.scene import Image, Point

Affine = npt.NDArray[np.float64]
Cover = npt.NDArray[np.float32]


def affine(size: tuple[int, int], middle: Point, turn: float, scale: float) -> Affine:
    """Matrix [2, 3] from a picture (width, height) to the board.

    The picture's middle goes to `middle`, turned by `turn` radians and scaled.
    """
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    x, y = (size[0] - 1) / 2, (size[1] - 1) / 2
    return np.array(
        [
            [cos, -sin, middle[0] - cos * x + sin * y],
            [sin, cos, middle[1] - sin * x - cos * y],
        ]
    )


def moved(points: npt.ArrayLike, matrix: Affine) -> npt.NDArray[np.float64]:
    """Points [n, 2] mapped by an affine matrix [2, 3]."""
    return np.asarray(np.asarray(points) @ matrix[:, :2].T + matrix[:, 2], np.float64)


def overlay(image: Image, picture: Image, cover: Cover, matrix: Affine) -> None:
    """Blend picture [h, w, 3] with coverage [h, w] (0..1) into the image through `matrix`."""
    height, width = cover.shape
    corners = moved([(0, 0), (width, 0), (width, height), (0, height)], matrix)
    limit = (image.shape[1], image.shape[0])
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, limit)
    if x1 <= x0 or y1 <= y0:
        return
    local = matrix.copy()
    local[:, 2] -= (x0, y0)
    size = (int(x1 - x0), int(y1 - y0))
    alpha = cv2.warpAffine(cover, local, size)
    rgb = cv2.warpAffine(picture, local, size, borderMode=cv2.BORDER_REPLICATE)
    window = image[y0:y1, x0:x1]
    window[:] = cv2.blendLinear(rgb, window.copy(), alpha, 1 - alpha)
