import numpy as np
import pytest
import torch
from torch import nn

from sklearn_psf.networks import train_network
from sklearn_psf.networks.modules import ARCHITECTURES, PSFNetwork
from sklearn_psf.networks.training import ArrayBatches, PSFLoss

NAN = float("nan")
CPU = torch.device("cpu")


def logit(p):
    return float(np.log(p / (1 - p)))


def test_published_loss_on_numbers():
    # gamma (a0 - a0~)^2 + (1 - a0) / (2 N) sum_n (a_n - a~_n)^2, averaged over the batch
    targets = torch.tensor([[1.0, 2.0], [NAN, NAN], [0.0, -1.0]])
    outputs = torch.tensor(
        [
            [1.5, 1.0, 9.0, 9.0, logit(0.2)],
            [4.0, 5.0, 9.0, 9.0, logit(0.7)],
            [0.0, -1.0, 9.0, 9.0, logit(0.5)],
        ]
    )
    expected = np.mean(
        [
            (0 - 0.2) ** 2 + (0.5**2 + 1.0**2) / (2 * 2),
            (1 - 0.7) ** 2,
            (0 - 0.5) ** 2,
        ]
    )
    loss = PSFLoss("mse")(outputs, targets)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_likelihood_loss_on_numbers():
    targets = torch.tensor([[1.0], [NAN]])
    log_variance = np.log(0.25)
    outputs = torch.tensor([[1.5, log_variance, logit(0.1)], [3.0, 1.0, logit(0.6)]])
    gauss = 0.5 * (0.5**2 / 0.25 + log_variance) * 0.25  # weighted by the variance
    entropy = -(np.log(0.9) + np.log(0.6)) / 2
    loss = PSFLoss("nll")(outputs, targets)
    assert float(loss) == pytest.approx(gauss / 2 + 0.5 * entropy, rel=1e-5)


def test_likelihood_is_least_at_the_true_mean_and_variance():
    generator = torch.Generator().manual_seed(0)
    targets = 2 + 0.5 * torch.randn(4000, 1, generator=generator)

    outputs = torch.tensor([[2.0, float(np.log(0.25)), -20.0]], requires_grad=True)
    PSFLoss("nll")(outputs.expand(4000, 3), targets).backward()
    assert outputs.grad[:, :2].abs().max() < 0.02
    for i, step in ((0, 0.3), (1, 0.3)):
        for sign in (-1, 1):
            moved = outputs.detach().clone()
            moved[0, i] += sign * step
            moved.requires_grad_(True)
            PSFLoss("nll")(moved.expand(4000, 3), targets).backward()
            assert float(moved.grad[0, i]) * sign > 0.02


@pytest.mark.parametrize("kind", ["nll", "mse"])
def test_textureless_patches_teach_validity_alone(kind):
    outputs = torch.zeros(2, 5, requires_grad=True)
    PSFLoss(kind)(outputs, torch.tensor([[NAN, NAN], [1.0, NAN]])).backward()
    assert torch.isfinite(outputs.grad).all()
    assert not outputs.grad[:, :4].any() and outputs.grad[:, 4].all()


def test_unknown_loss():
    with pytest.raises(ValueError, match="loss must be 'nll' or 'mse'; got 'l1'"):
        PSFLoss("l1")


def test_array_batches_shuffle_and_see_everything_once_per_round():
    X = np.arange(10.0, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    batches = ArrayBatches(X, X[:, 0, :2], 4, np.random.RandomState(0), CPU)
    drawn = [next(it) for it in [iter(batches)] for _ in range(6)]
    assert [len(x) for x, _ in drawn] == [4, 4, 2, 4, 4, 2]
    assert all(
        torch.equal(x[:, 0, :2], y) and x.dtype == y.dtype == torch.float32 for x, y in drawn
    )
    rounds = [torch.cat([x[:, 0, 0] for x, _ in drawn[i : i + 3]]) for i in (0, 3)]
    for order in rounds:
        assert sorted(order.tolist()) == list(range(10))
    assert not torch.equal(*rounds)


def test_a_single_left_over_patch_is_not_a_batch():
    X = np.zeros((5, 4, 4), np.float32)
    batches = iter(ArrayBatches(X, X[:, 0, :1], 2, np.random.RandomState(0), CPU))
    assert [len(next(batches)[0]) for _ in range(4)] == [2, 2, 2, 2]


class BlockMeans(nn.Module):
    """A backbone with few weights: block averages of the patch, normalised."""

    def __init__(self, n_outputs):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, n_outputs)

    def forward(self, x):
        return self.fc(self.norm(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)))


@pytest.fixture
def task(monkeypatch):
    """A quick task: a network, batches that can be drawn anew, and the targets."""
    monkeypatch.setitem(ARCHITECTURES, "few", BlockMeans)
    rng = np.random.RandomState(0)
    X = rng.randn(96, 16, 16).astype("f4")
    X[:, :4, :4] += rng.randn(96, 1, 1)
    y = 3 + 10 * X[:, :4, :4].mean((1, 2))[:, None]
    y[::12] = np.nan

    def start(seed=0):
        torch.manual_seed(0)
        network = PSFNetwork("few", 1)
        return network, ArrayBatches(X, y, 16, np.random.RandomState(seed), CPU), y

    return start


def train(task, max_epochs=8, **settings):
    network, batches, sample = task()
    options = {"n_batches": 6, "max_epochs": max_epochs, "learning_rate": 0.05, "ema_decay": 0.9}
    return train_network(network, batches, sample, **options | settings)


@pytest.mark.parametrize("loss", ["nll", "mse"])
def test_training_lowers_the_loss(task, loss):
    state, history = train(task, loss=loss)
    losses = [figures["train_loss"] for figures in history]
    assert losses[-1] < losses[0] - 0.1 and losses[-1] < 0.6 * losses[0]
    assert [f["epoch"] for f in history] == list(range(1, 9))
    assert [f["batches"] for f in history] == list(range(6, 49, 6))
    assert all(isinstance(value, np.ndarray) for value in state.values())


def test_targets_are_standardised_by_the_valid_rows(task):
    state, _ = train(task, max_epochs=1)
    _, _, y = task()
    assert state["target_mean"] == pytest.approx(np.nanmean(y, 0), rel=1e-5)
    assert state["target_scale"] == pytest.approx(np.nanstd(y, 0), rel=1e-5)


def test_same_seed_same_weights(task):
    (a, _), (b, _) = train(task, max_epochs=2), train(task, max_epochs=2)
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key])


def test_the_result_is_an_average_of_the_weights(task):
    states = {}
    for decay in (1e-9, 0.9):
        states[decay], _ = train(task, max_epochs=2, ema_decay=decay)
    assert not np.array_equal(states[0.9]["backbone.fc.weight"], states[1e-9]["backbone.fc.weight"])


class Stop(Exception):
    pass


def interrupt_at(epoch):
    seen = []

    def evaluate(state):
        seen.append(state)
        if len(seen) == epoch:
            raise Stop
        return len(seen)

    return evaluate


def test_an_interrupted_training_resumes(task, tmp_path):
    checkpoint = tmp_path / "training.pt"
    with pytest.raises(Stop):
        train(task, max_epochs=6, checkpoint=checkpoint, evaluate=interrupt_at(4))
    assert checkpoint.exists() and not list(tmp_path.glob("*.part"))
    epochs = []
    state, history = train(
        task, max_epochs=6, checkpoint=checkpoint, evaluate=lambda s: epochs.append(s) or 0.0
    )
    assert len(epochs) == 3  # 4, 5 and 6: the first three were not trained again
    assert [f["epoch"] for f in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["batches"] == 36
    minutes = [f["minutes"] for f in history]
    assert minutes == sorted(minutes)
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    # a finished training returns its result and does nothing
    again, same = train(task, max_epochs=6, checkpoint=checkpoint, evaluate=interrupt_at(1))
    assert same == history
    for key, value in state.items():
        np.testing.assert_array_equal(value, again[key])


def test_resuming_continues_the_optimizer_and_the_schedule(task, tmp_path):
    """With the same batches for every epoch, an interruption changes nothing at all."""

    def run(**settings):
        network, batches, sample = task()
        options = {"n_batches": 6, "max_epochs": 4, "learning_rate": 0.05, "ema_decay": 0.9}
        return train_network(network, [next(iter(batches))] * 24, sample, **options, **settings)[0]

    whole = run()
    checkpoint = tmp_path / "training.pt"
    with pytest.raises(Stop):
        run(checkpoint=checkpoint, evaluate=interrupt_at(3))
    resumed = run(checkpoint=checkpoint)
    for key, value in whole.items():
        np.testing.assert_allclose(resumed[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


def test_patience_ends_the_training(task):
    scores = iter([0.1, 0.5, 0.4, 0.45, 0.2, 0.9, 0.9])
    _, history = train(task, patience=3, evaluate=lambda state: next(scores))
    assert [f["valid_score"] for f in history] == [0.1, 0.5, 0.4, 0.45, 0.2]


def test_patience_counts_across_an_interruption(task, tmp_path):
    checkpoint = tmp_path / "training.pt"
    scores = iter([0.5, 0.4, Stop()])

    def evaluate(state):
        score = next(scores)
        if isinstance(score, Exception):
            raise score
        return score

    with pytest.raises(Stop):
        train(task, patience=3, checkpoint=checkpoint, evaluate=evaluate)
    _, history = train(task, patience=3, checkpoint=checkpoint, evaluate=lambda state: 0.4)
    assert len(history) == 4
    # and one that patience has ended stays ended
    _, same = train(task, patience=3, checkpoint=checkpoint, evaluate=interrupt_at(1))
    assert same == history


def test_an_interruption_by_the_user_is_not_swallowed(task, tmp_path):
    def report(figures):
        if figures["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task, report=report, checkpoint=tmp_path / "training.pt")
    _, history = train(task, checkpoint=tmp_path / "training.pt")
    assert len(history) == 8


def test_time_ends_the_training(task):
    _, history = train(task, max_epochs=10**6, max_minutes=0.5 / 60)
    assert 1 <= len(history) < 10**5
    assert history[-1]["minutes"] * 60 < 10


def test_reports_every_epoch(task):
    seen = []
    _, history = train(task, max_epochs=3, report=seen.append, evaluate=lambda state: 0.25)
    assert seen == history
    assert {"epoch", "minutes", "batches", "train_loss", "valid_score"} <= set(seen[0])


def test_nothing_valid_to_train_on(task):
    network, batches, y = task()
    with pytest.raises(ValueError, match="No valid training sample"):
        train_network(network, batches, np.full_like(y, np.nan), n_batches=1, max_epochs=1)
