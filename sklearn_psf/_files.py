"""Files that appear complete or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_new_file", "write_atomically"]


def check_new_file(path, *, suffixes, overwrite=False):
    """Check that `path` can become a new file.

    Parameters
    ----------
    path : str or os.PathLike
        Where to write.
    suffixes : tuple of str
        Accepted ends of the name, in lower case, such as ``(".tif",)``.
    overwrite : bool, default=False
        Whether a file there may be replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError
        If `path` is not a path.
    ValueError
        If its suffix is not among the accepted ones.
    FileNotFoundError
        If its folder does not exist.
    IsADirectoryError
        If it is a folder.
    FileExistsError
        If it exists and `overwrite` is False.

    Examples
    --------
    >>> check_new_file("restored.png", suffixes=(".tif", ".tiff"))
    Traceback (most recent call last):
    ...
    ValueError: path must end in .tif or .tiff, got 'restored.png'.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, got {path!r}.")
    path = Path(path)
    if not path.name.lower().endswith(suffixes):
        raise ValueError(f"path must end in {' or '.join(suffixes)}, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(path.parent)!r} does not exist.")
    if path.is_dir():
        raise IsADirectoryError(f"path {str(path)!r} is a folder.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"path {str(path)!r} exists already and is not overwritten.")
    return path


@contextmanager
def write_atomically(path):
    """Give a temporary name beside `path`, moved to `path` once the block ends well.

    Parameters
    ----------
    path : pathlib.Path
        The final name; on the same disk as the temporary one, so that the move is one step.

    Yields
    ------
    pathlib.Path
        Where to write meanwhile. If the block raises, that file is removed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder, "a.txt")
    ...     with write_atomically(target) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     print([p.name for p in Path(folder).iterdir()], target.read_text())
    ['a.txt'] whole
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
