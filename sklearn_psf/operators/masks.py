"""Patches of which only a part is to be read."""

import torch

__all__ = ["apply_masks"]


def apply_masks(patches: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Leave of patches what a mask shows, less its mean: nothing else adds to a spectrum.

    Parameters
    ----------
    patches : Tensor of shape (n, H, W)
        Patches in any unit.
    masks : Tensor of shape (n, H, W)
        Between 0 and 1, smooth.

    Returns
    -------
    Tensor of shape (n, H, W)
        Of mean 0.

    Examples
    --------
    >>> apply_masks(torch.tensor([[[2.0, 4.0, 9.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]]))
    tensor([[[-1.,  1.,  0.]]])
    """
    total = masks.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    mean = (masks * patches).sum((-2, -1), keepdim=True) / total
    return (patches - mean) * masks
