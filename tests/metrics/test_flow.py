import numpy as np
import pytest
from sklearn.metrics import r2_score

from sklearn_psf.metrics import align_sense, flow_r2, sense_accuracy

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform([-9, -9, 0, 0], [9, 9, 1, 1], (3, 16, 16, 4)).transpose(0, 3, 1, 2)
NOISY = TRUTH + RNG.normal(0, 1, TRUTH.shape) * [[[[2]], [[3]], [[0.1]], [[0.2]]]]
TURN = np.where(RNG.random((3, 1, 16, 16)) < 0.5, -1, 1)
TURNED = np.concatenate([NOISY[:, :2] * TURN, NOISY[:, 2:]], 1)


def rows(motion):
    return np.moveaxis(motion, 1, -1).reshape(-1, 4)


def test_sense_is_aligned_pixel_by_pixel_and_nothing_else_changes():
    aligned = align_sense(TURNED, TRUTH)
    np.testing.assert_allclose(np.abs(aligned), np.abs(TURNED))
    np.testing.assert_array_equal(aligned[:, 2:], TURNED[:, 2:])
    assert ((aligned[:, :2] * TRUTH[:, :2]).sum(1) >= 0).all()
    # Both components turn together, or a direction would be mirrored.
    turned = aligned[:, :2] / TURNED[:, :2]
    np.testing.assert_allclose(turned[:, 0], turned[:, 1])
    assert (turned < 0).any() and (turned > 0).any()
    np.testing.assert_allclose(align_sense(aligned, TRUTH), aligned)


def test_aligning_does_not_change_its_inputs():
    motion, reference = TURNED.copy(), TRUTH.copy()
    align_sense(motion, reference)
    np.testing.assert_array_equal(motion, TURNED)
    np.testing.assert_array_equal(reference, TRUTH)


def test_nothing_is_turned_without_a_reference_direction():
    motion = np.array([[3.0, -1.0, 0.5, 0.2]])
    for reference in (np.zeros((1, 4)), np.full((1, 4), np.nan)):
        np.testing.assert_array_equal(align_sense(motion, reference), motion)


def test_r2_is_that_of_scikit_learn_over_all_pixels():
    expected = r2_score(rows(TRUTH), rows(NOISY), multioutput="raw_values")
    got = flow_r2(TRUTH, NOISY, kind="signed", multioutput="raw_values")
    np.testing.assert_allclose(got, expected)
    assert flow_r2(TRUTH, NOISY, kind="signed") == pytest.approx(expected.mean())


def test_aligned_r2_forgives_the_sense_and_signed_r2_does_not():
    aligned = flow_r2(TRUTH, TURNED, multioutput="raw_values")
    expected = r2_score(rows(TRUTH), rows(align_sense(NOISY, TRUTH)), multioutput="raw_values")
    np.testing.assert_allclose(aligned, expected)
    signed = flow_r2(TRUTH, TURNED, kind="signed", multioutput="raw_values")
    assert (signed[:2] < 0.2).all() and (aligned[:2] > 0.5).all()
    np.testing.assert_allclose(signed[2:], aligned[2:])


def test_magnitudes_are_compared_component_by_component():
    mirrored = TRUTH * [[[[1]], [[-1]], [[1]], [[1]]]]  # a wrong direction, which this forgives
    assert flow_r2(TRUTH, mirrored, kind="magnitude") == pytest.approx(1)
    assert flow_r2(TRUTH, mirrored) < 0.9
    expected = r2_score(np.abs(rows(TRUTH)), np.abs(rows(NOISY)))
    assert flow_r2(TRUTH, NOISY, kind="magnitude") == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["aligned", "magnitude", "signed"])
def test_pixels_without_a_truth_are_left_out(kind):
    truth = TRUTH.copy()
    truth[:, :, :8] = np.nan
    truth[:, 3, 8:10] = np.nan  # one component is enough
    rest = (slice(None), slice(None), slice(10, None))
    expected = flow_r2(TRUTH[rest], TURNED[rest], kind=kind)
    assert flow_r2(truth, TURNED, kind=kind) == pytest.approx(expected)


def test_sense_is_counted_where_it_can_be_told():
    lateral = [[9, 0], [0, 9], [-6, 6], [9, 0], [9, 0], [3, 3], [np.nan, 9]]
    axial = [[0.5, 0.5], [0.5, -0.5], [0.5, 0.5], [0.1, 0.5], [0.5, 0.1], [0.5, 0.5], [0.5, 0.5]]
    truth = np.concatenate([lateral, axial], 1)
    right = truth * [0.5, 0.5, 2, 2]  # only the sense matters
    right[0, :2] *= -1
    wrong_elsewhere = right.copy()
    wrong_elsewhere[3:, :2] *= -1  # v_z small, z0 small, slow, unknown
    for predicted in (right, wrong_elsewhere):
        assert sense_accuracy(truth, predicted) == pytest.approx(2 / 3)
    assert sense_accuracy(truth, right, least_axial=0.05) == pytest.approx(4 / 5)
    assert sense_accuracy(truth, right, least_speed=4.0) == pytest.approx(3 / 4)
    assert np.isnan(sense_accuracy(truth, right, least_speed=30))


@pytest.mark.parametrize("function", [align_sense, flow_r2, sense_accuracy])
@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (np.ones((2, 4, 5)), np.ones((2, 4, 6)), r"got \(2, 4, 5\) and \(2, 4, 6\)"),
        (np.ones((2, 3)), np.ones((2, 3)), r"shape \(n, 4, ...\), got \(2, 3\)"),
        (np.ones(4), np.ones(4), r"shape \(n, 4, ...\), got \(4,\)"),
    ],
)
def test_bad_shapes(function, a, b, match):
    with pytest.raises(ValueError, match=match):
        function(a, b)


def test_bad_kind_and_too_few_pixels():
    with pytest.raises(ValueError, match="kind must be .* got 'vector'"):
        flow_r2(TRUTH, NOISY, kind="vector")
    with pytest.raises(ValueError, match="at least 2 rows"):
        flow_r2(np.full((1, 4, 8), np.nan), np.ones((1, 4, 8)))
