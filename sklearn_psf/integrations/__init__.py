"""Optional extras: control of a microscope. Nothing here is imported by the package itself."""

__all__ = []
