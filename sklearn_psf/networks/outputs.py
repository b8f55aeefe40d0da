"""What the outputs of every network mean."""

import torch

__all__ = ["split_outputs"]


def split_outputs(
    outputs: torch.Tensor, target_mean: torch.Tensor, target_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split outputs into the encoding, its variance and the probability of being invalid.

    Parameters
    ----------
    outputs : Tensor of shape (..., 2 E + 1)
        Standardised means, logarithms of their variances, and the logit of being invalid.
    target_mean, target_scale : Tensor of shape (E,)
        What the targets were standardised with.

    Returns
    -------
    encoding, variance : Tensor of shape (..., E)
        In the units of the encoding.
    invalid : Tensor of shape (...)
        Between 0 and 1.

    Examples
    --------
    >>> import torch
    >>> mean, scale = torch.tensor([5.0]), torch.tensor([2.0])
    >>> split_outputs(torch.tensor([[1.0, 0.0, 0.0]]), mean, scale)
    (tensor([[7.]]), tensor([[4.]]), tensor([0.5000]))
    """
    n_encoded = len(target_mean)
    mean, log_variance = outputs[..., :n_encoded], outputs[..., n_encoded:-1]
    encoding = mean * target_scale + target_mean
    variance = log_variance.clamp(-12, 6).exp() * target_scale**2
    return encoding, variance, outputs[..., -1].sigmoid()
