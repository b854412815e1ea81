"""The node daemon: pool, leases, journal, server, control CLI."""

from importlib.metadata import version

__version__ = version("enid")
