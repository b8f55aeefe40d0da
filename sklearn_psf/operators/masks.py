"""Patches of which only a part is to be read."""

import torch

__all__ = ["FADE", "apply_masks", "keep_apart"]

FADE = 8.0  # pixels over which masks fade out where an image ends within a patch

_LEAST = 0.03  # of a patch: less is not worth comparing with


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


def keep_apart(patches: torch.Tensor, own: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Two parts of patches, as bright as if each filled as much as the first, and their masks.

    Parameters
    ----------
    patches : Tensor of shape (n, H, W)
        Patches in any unit.
    own, rest : Tensor of shape (n, H, W)
        Masks between 0 and 1, smooth.

    Returns
    -------
    Tensor of shape (n, 4, H, W)
        Both parts, of mean 0: spectra of one texture are alike in both. The second is 0 where its
        mask leaves less than 3 % of a patch. Then both masks.

    Examples
    --------
    >>> half = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> keep_apart(torch.tensor([[[2.0, 4.0, 9.0, 5.0]]]), half, 1 - half).abs().squeeze()
    tensor([[1., 1., 0., 0.],
            [0., 0., 2., 2.],
            [1., 1., 0., 0.],
            [0., 0., 1., 1.]])
    """
    shares = [mask.square().mean((-2, -1), keepdim=True) for mask in (own, rest)]
    factor = (shares[0] / shares[1].clamp(min=1e-6)).sqrt()
    second = torch.where(shares[1] > _LEAST, apply_masks(patches, rest) * factor, 0.0)
    return torch.stack([apply_masks(patches, own), second, own, rest], 1)
