"""Images reach the device as they are, in batches.

The way to a GPU (pinned buffers, a stream of its own) cannot run here: benchmarks/gpu exercises it.
"""

import numpy as np
import pytest
import torch

from worker.runner import batches, round_up
from worker.uploads import SHAPE, Uploads

IMAGES = [np.full(SHAPE, level, np.uint8) for level in range(5)]


def test_images_arrive_unchanged_and_in_order() -> None:
    uploads = Uploads(torch.device("cpu"), batch=3)
    for images in (IMAGES[:3], IMAGES[3:], IMAGES[1:2]):
        taken = uploads.take(images)
        assert taken.dtype is torch.uint8
        assert np.array_equal(taken.numpy(), np.stack(images))


def test_what_was_taken_does_not_change_with_what_is_taken_next() -> None:
    uploads = Uploads(torch.device("cpu"), batch=3)
    first = uploads.take(IMAGES[:3])
    uploads.take(IMAGES[2:])
    assert first[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("turned", [lambda image: image[:, ::-1], lambda image: image.transpose(1, 0, 2)])
def test_views_of_any_strides_may_be_read_only(turned: object) -> None:
    image = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    image.flags.writeable = False
    taken = Uploads(torch.device("cpu"), batch=3).take([turned(image)])
    assert np.array_equal(taken[0].numpy(), turned(image))


def test_batches_hold_no_more_than_they_may_with_padding_counted() -> None:
    assert list(batches([], 4, lambda _: 1)) == []
    assert list(batches(range(5), 2, lambda _: 1)) == [[0, 1], [2, 3], [4]]
    sizes = [1, 1, 2, 3, 3, 9]
    assert list(batches(sizes, 6, lambda size: size)) == [[1, 1, 2], [3, 3], [9]]


def test_round_up() -> None:
    assert [round_up(count, 32) for count in (1, 32, 33)] == [32, 32, 64]
