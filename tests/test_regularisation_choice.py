import numpy as np
import pytest

from sklearn_psf import _regularisation_choice
from sklearn_psf._regularisation_choice import (
    LAMBDAS,
    Photograph,
    choose_lambda,
    choose_regularisation,
    choose_setting,
)

N = len(LAMBDAS)


def test_weights_are_even_on_a_logarithmic_scale():
    np.testing.assert_allclose(np.diff(np.log2(LAMBDAS)), 1)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[1.0, 2.0, 3.0]], (0, 3)),
        ([[1.0, 3.0, 2.0], [0.0, 1.0, 2.9]], (0, 2)),
        ([[1.0, 2.0, 2.5], [1.0, 2.985, 3.0]], (1, 2)),  # 0.02 dB is not worth an iteration
        ([[0.0, 0.0]], (0, 1)),
    ],
)
def test_the_cheapest_of_the_best_is_chosen(table, expected):
    assert choose_setting(np.array(table)) == expected


@pytest.mark.parametrize(
    ("likelihood", "expected"),
    [
        ([0.0, 0.0, 0.0], 2),  # the last iteration counts, not the best
        ([-3.0, -3.0, -3.0], 2),
        ([1e-4, 1e-4, 0.0], 1),  # 3.7 nats are 0.37 dB
        ([2e-3, 0.0, 0.0], 0),
    ],
)
def test_weight_by_simulated_images_and_photons_held_out(likelihood, expected):
    snr = np.array([[9.0, 6.0], [3.0, 7.8], [3.0, 8.0]])
    row, criterion = choose_lambda(snr, np.array(likelihood), 192**2)
    assert row == expected == np.argmax(criterion)
    assert (criterion <= snr[:, -1]).all() and (criterion == snr[:, -1]).any()


def test_small_images_have_less_to_say_and_large_ones_not_more():
    snr, likelihood = np.array([[1.0], [0.0]]), np.array([0.0, 1e-3])
    gaps = {size: np.diff(choose_lambda(snr, likelihood, size**2)[1])[0] for size in (96, 192, 384)}
    assert gaps[96] + 1 == pytest.approx(0.1 * 96**2 * 1e-3)
    assert gaps[192] + 1 == pytest.approx(0.1 * 192**2 * 1e-3)
    assert gaps[384] == gaps[192]


class Expected:
    """Stands for the restorations: tables that are given, and a note of every call."""

    def __init__(self, monkeypatch, best, likelihood=0.0):
        self.best, self.likelihood = best, likelihood
        self.starts, self.held_out, self.states = [], [], []
        for name in ("simulated_snr", "held_out_likelihood"):
            monkeypatch.setattr(_regularisation_choice, name, getattr(self, name))

    def simulated_snr(self, image, operator, lambdas, n_iter, *, start, **options):
        """Best at one weight, and in its row after six iterations."""
        self.starts.append(start)
        rows = -abs(np.arange(len(lambdas)) - (self.best if len(lambdas) == N else 0))
        return rows[:, np.newaxis] - 0.1 * abs(np.arange(n_iter) - 5.0)

    def held_out_likelihood(self, image, operator, lambdas, n_iter, **options):
        self.held_out.append((operator, n_iter))
        return self.likelihood * np.ones(len(lambdas))

    def choose(self, lambda_tv, n_iter, n_images=1, possible=(None,)):
        def photographs(rng):
            self.states.append(rng.randint(2**31))
            for k in range(n_images):
                yield Photograph(np.zeros((192, 192)), f"blur {k}", possible, 1.0, 0.0, 0.0)

        return choose_regularisation(
            photographs,
            lambda_tv=lambda_tv,
            n_iter=n_iter,
            accelerate=True,
            random_state=0,
        )


def test_a_weight_that_is_chosen_is_iterated_longest(monkeypatch):
    choice = Expected(monkeypatch, best=3).choose(None, None)
    assert (choice.lambda_tv, choice.n_iter) == (LAMBDAS[3], 60)
    assert choice.simulated_snr.shape == (N, 60)
    choice = Expected(monkeypatch, best=3).choose(None, 7)
    assert (choice.lambda_tv, choice.n_iter) == (LAMBDAS[3], 7)
    assert choice.simulated_snr.shape == (N, 7)


def test_a_weight_that_is_given_stops_where_the_simulated_images_do(monkeypatch):
    expected = Expected(monkeypatch, best=0)
    choice = expected.choose(0.1, None)
    assert (choice.lambda_tv, choice.n_iter) == (0.1, 6)
    assert choice.simulated_snr.shape == (1, 60) and choice.lambdas == [0.1]
    assert choice.held_out_likelihood is None and choice.criterion is None
    assert expected.held_out == [] and expected.starts == [4e-3]


def test_photons_held_out_outvote_the_simulation(monkeypatch):
    likelihood = np.linspace(0, 0.01, N)  # 369 nats, thus 37 dB, from end to end
    choice = Expected(monkeypatch, best=2, likelihood=likelihood).choose(None, None)
    assert choice.lambda_tv == LAMBDAS[-1]
    np.testing.assert_array_equal(choice.held_out_likelihood, likelihood)
    assert np.argmax(choice.criterion) == N - 1


@pytest.mark.parametrize(("best", "restarts"), [(0, True), (2, False), (4, False), (6, True)])
def test_a_weight_far_from_the_first_is_simulated_again(monkeypatch, best, restarts):
    expected = Expected(monkeypatch, best)
    expected.choose(None, None, n_images=2)
    assert expected.starts == [4e-3] * 2 + [LAMBDAS[best]] * 2 * restarts
    # the photons held out do not depend on where the simulation started
    assert expected.held_out == [("blur 0", 60), ("blur 1", 60)]
    # every pass has the same noise
    assert len(expected.states) == 1 + restarts and len(set(expected.states)) == 1


@pytest.mark.parametrize(("n_iter", "n_chosen"), [(None, 6), (9, 9)])
def test_where_the_blur_is_uncertain_the_simulation_decides_alone(monkeypatch, n_iter, n_chosen):
    expected = Expected(monkeypatch, best=3, likelihood=np.linspace(0, 0.01, N))
    choice = expected.choose(None, n_iter, possible=("wider", "narrower"))
    assert (choice.lambda_tv, choice.n_iter) == (LAMBDAS[3], n_chosen)
    assert len(expected.starts) == 2 and expected.held_out == []
    assert choice.held_out_likelihood is None and choice.criterion is None


def test_nothing_to_choose_by(monkeypatch):
    assert Expected(monkeypatch, best=3).choose(None, None, n_images=0) is None
