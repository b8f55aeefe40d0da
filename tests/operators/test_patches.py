import numpy as np
import pytest
import torch

from sklearn_psf.operators.patches import cheapest_layout, cut_layout

CPU = torch.device("cpu")


@pytest.mark.parametrize("parts", [(1, 1), (2, 3), (5, 1)])
@pytest.mark.parametrize(("shape", "kernel"), [((40, 31), (7, 5)), ((5, 64), (9, 1))])
def test_patches_tile_the_image(shape, kernel, parts):
    layout = cut_layout(shape, kernel, parts)
    seen = np.zeros(shape, int)
    for patch in layout.patches:
        seen[patch.image] += 1
        for field, image, size, n_fft in zip(
            patch.field, patch.image, kernel, layout.fft_shape, strict=True
        ):
            assert (field.start, field.stop) == (image.start, image.stop + size - 1)
            assert n_fft >= field.stop - field.start
    assert (seen == 1).all() and len(layout.patches) == parts[0] * parts[1]


def test_small_images_and_other_devices_get_one_patch():
    assert len(cheapest_layout((200, 230), (9, 9), lambda _: 2, CPU)[0].patches) == 1
    meta = torch.device("meta")
    assert len(cheapest_layout((4000, 4000), (9, 9), lambda _: 2, meta)[0].patches) == 1


def test_large_images_get_patches_that_cost_less():
    def count(layout):
        return 2 * len(layout.patches)

    layout, cost = cheapest_layout((4096, 2048), (31, 31), count, CPU)
    _, whole = cheapest_layout((4096, 2048), (31, 31), count, torch.device("meta"))
    assert len(layout.patches) > 8 and cost < 0.8 * whole


def test_fewer_modes_in_smaller_patches_make_them_smaller():
    def even(layout):
        return 10 * len(layout.patches)

    def fewer(layout):
        return 10 * len(layout.patches) ** 0.5

    shape, kernel = (1024, 1024), (113, 113)
    some, many = (len(cheapest_layout(shape, kernel, f, CPU)[0].patches) for f in (even, fewer))
    assert many > some
