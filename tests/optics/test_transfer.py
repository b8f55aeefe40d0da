import numpy as np
import pytest

from sklearn_psf.optics import defocus_transfer, make_psf_model


@pytest.mark.parametrize("focus", [0.0, 0.3, 0.8])
def test_transfer_is_the_transform_of_the_familys_psf(focus):
    psf = make_psf_model("zernike-1", size=255).psf([[focus]])[0]
    expected = np.fft.fft2(np.fft.ifftshift(psf))[0, :100].real
    transfer = defocus_transfer(np.arange(100) / 255, np.array([focus]), 0.25)[0]
    np.testing.assert_allclose(transfer, expected, atol=0.01)


def test_transfer_ends_at_twice_the_cutoff():
    transfer = defocus_transfer(np.array([0.0, 0.39, 0.41]), np.array([0.2]), 0.2)[0]
    assert transfer[0] == pytest.approx(1, abs=1e-6)
    assert transfer[1] != 0 and transfer[2] == 0
