import numpy as np
import pytest

from sklearn_psf.optics import make_psf_model

SIZE = 192


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("flow/plot_pipe_flow.py")


@pytest.fixture(scope="module")
def photograph(example):
    return example.photograph(SIZE)


class Oracle:
    """Knows the truth, up to the sense of the lateral motion on one side of the image."""

    psf_model_ = make_psf_model("motion")

    def __init__(self, truth, optics, exposure):
        self.truth, self.optics = truth, optics
        speed, depth = optics.object_pixel / exposure, optics.waves_to_micrometres(1.0)
        self.scale_ = np.array([speed, speed, depth / exposure, depth])
        self.units_ = ("um/s", "um/s", "um/s", "um")

    def fit(self, X):
        return self

    def predict(self, X, return_std=False):
        motion = np.nan_to_num(self.truth)[np.newaxis]
        motion[:, :2, :, SIZE // 2 :] *= -1
        return (motion, motion) if return_std else motion

    def predict_invalid(self, X):
        return np.isnan(self.truth[:1]).astype(float)

    def predict_sense(self, X):
        return np.where(np.arange(SIZE) < SIZE // 2, 1.0, 0.5) * np.ones(X.shape)


def test_the_photograph_has_the_flow_in_micrometres(example, photograph):
    image, truth = photograph
    assert image.shape == truth.shape[1:] == (SIZE, SIZE)
    assert np.nanmax(np.hypot(*truth[:2])) == pytest.approx(example.SPEED, rel=0.01)
    assert np.nanmax(truth[2]) == pytest.approx(example.AXIAL_SPEED, rel=0.01)
    np.testing.assert_allclose(truth[3][~np.isnan(truth[3])], example.DEPTH)
    inside = abs(example.distance_from_axis(image.shape)) <= example.RADIUS
    np.testing.assert_array_equal(inside, ~np.isnan(truth[0]))


def test_profile_and_flow_rate_of_the_truth_are_those_of_poiseuille(example, photograph):
    distances, speeds = example.profile(photograph[1])
    expected = example.SPEED * (1 - (distances / example.RADIUS) ** 2)
    np.testing.assert_allclose(speeds, expected, atol=0.02 * example.SPEED)
    rate = example.flow_rate(distances, speeds)
    assert rate == pytest.approx(4 / 3 * example.SPEED * example.RADIUS, rel=0.01)


def test_all_of_it_with_the_truth_in_place_of_a_prediction(
    example, photograph, monkeypatch, tmp_path, capsys
):
    def make_oracle(*, pretrained, optics, exposure):
        assert (pretrained, optics, exposure) == ("motion", example.OPTICS, example.EXPOSURE)
        return Oracle(photograph[1], optics, exposure)

    monkeypatch.setattr(example, "BlurFlowEstimator", make_oracle)
    monkeypatch.setattr(example, "photograph", lambda size: photograph)
    example.main(["--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    assert "the sense aside: v_y 0 um/s, v_x 0 um/s, v_z 0 um/s, z0 0.0 um" in printed
    rows = [line.split() for line in printed.splitlines()]
    table = [row for row in rows if row[0] in ("speed", "flow", "axial", "depth,")]
    assert len(table) == 4
    for row in table:
        assert float(row[-2]) == pytest.approx(float(row[-1]))
    assert (tmp_path / "new" / "pipe_flow.png").stat().st_size > 10_000
