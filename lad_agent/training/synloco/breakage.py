"""Pieces broken out of the edge of a thing."""

from __future__ import annotations

import cv2
import numpy as np

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.scene import Image, Point


def break_edge(
    image: Image, under: Image, body: Image, rng: np.random.Generator, centre: Point, size: float
) -> Image:
    """Break a piece out of the thing that `body` [BOARD, BOARD] covers; returns its mask.

    `under` is the board without the thing; the picture changes only where the body is.
    """
    before, outside = image.copy(), body < 128
    mask = sprites.blank()
    while not mask.any():  # a jagged outline can, rarely, lie wholly beside the edge
        image[:] = before
        mask = sprites.chip(image, under, rng, centre, size)
        image[outside] = before[outside]
        mask[outside] = 0
    return np.asarray(cv2.dilate(mask, np.ones((3, 3), np.uint8)), np.uint8)
