"""The command `whence`: asks a running service about files, folders and catalogues."""

from gateway.cli.command import main

__all__ = ["main"]
