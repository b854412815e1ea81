"""The node daemon: pool, leases, journal, server, control CLI."""


def __getattr__(name: str) -> str:
    """Return `__version__`, read when somebody asks: that costs a command 40 ms of its start."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - the reason is above

        return version("enid")
    raise AttributeError(name)
