import pytest
import torch

from sklearn_psf.operators import divergence, gradient, strips, total_variation, tv_curvature

SIZES = [(1, 1), (1, 5), (6, 1), (7, 8), (13, 11)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SIZES)
def test_divergence_is_the_negative_adjoint(shape, dtype, tolerance):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, *shape, generator=generator, dtype=dtype)
    p = torch.rand(3, 2, *shape, generator=generator, dtype=dtype)
    left, right = (gradient(x) * p).sum(), -(x * divergence(p)).sum()
    scale = (gradient(x).abs() * p).sum() + 1e-30
    assert abs(left - right) / scale < tolerance


def test_gradient_of_a_ramp():
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    g = gradient(2 * rows + 3 * columns)
    assert (g[0, :-1] == 2).all() and (g[0, -1] == 0).all()
    assert (g[1, :, :-1] == 3).all() and (g[1, :, -1] == 0).all()


def test_curvature_is_the_negative_gradient_of_total_variation():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(total_variation(x, 0.1).sum(), x)
    torch.testing.assert_close(tv_curvature(x.detach(), 0.1), -derivative)


def test_total_variation_of_an_edge_is_height_times_length():
    x = torch.zeros(6, 8)
    x[:, 4:] = 5
    assert total_variation(x) == 30
    assert total_variation(x, 1e-3) == pytest.approx(30, rel=1e-3)
    assert total_variation(x, 1.0) < 30
    assert total_variation(torch.ones(3, 4, 4), 0.5).tolist() == [0, 0, 0]


def test_weight_selects_pixels():
    x = torch.zeros(6, 8)
    x[:, 4:] = 5
    weight = torch.zeros(6, 1)
    weight[0] = 1
    assert total_variation(x, weight=weight) == 5


def test_curvature_is_bounded_and_scale_free():
    x = torch.rand(20, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    curvature = tv_curvature(x, 1e-3)
    assert curvature.abs().max() <= 4
    torch.testing.assert_close(tv_curvature(1000 * x, 1.0), curvature)
    assert (tv_curvature(torch.ones(5, 5), 0.1) == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (7, 9), (2, 3, 8, 6)])
def test_curvature_in_strips_is_that_of_its_parts(shape, monkeypatch):
    monkeypatch.setattr("sklearn_psf.operators.row_strips._STRIP_POINTS", 20)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    g = gradient(x)
    expected = divergence(g / (g.square().sum(-3) + 0.1**2).sqrt().unsqueeze(-3))
    out = torch.empty_like(x)
    assert tv_curvature(x, 0.1, out=out) is out
    torch.testing.assert_close(out, expected)


def test_strips_cover_the_rows():
    for shape in ((1000, 700), (3, 50, 8000), (1, 10**6)):
        rows = list(strips(torch.empty(shape, device="cpu")))
        assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]
        assert rows[-1].stop == shape[-2]
    assert list(strips(torch.empty(5000, 5000, device="meta"))) == [slice(0, 5000)]


def test_eps_per_image():
    x = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(3))
    eps = torch.tensor([0.1, 0.2])[:, None, None]
    torch.testing.assert_close(tv_curvature(x, eps)[1], tv_curvature(x[1], 0.2))


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"p must have shape \(..., 2, H, W\)"):
        divergence(torch.ones(3, 4, 4))
