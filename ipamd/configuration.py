"""The settings of a daemon that runs: read, watched, changed. Shell.

Reads the folder where the ConfigMap is mounted, hears of the node's labels and annotations
from outside, and lets `ipamd.layers` decide. The rule to keep: what cannot be used, or
cannot be read, changes nothing. The former settings hold until all is well again.

Everything happens on the loop: the files are few, small, and on tmpfs.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from eni.limits import InstanceLimits
from ipamd import logs
from ipamd.kinds import shown
from ipamd.layers import (
    PROFILE_LABEL,
    SETTINGS_ANNOTATION,
    Origin,
    Resolved,
    Sources,
    layers_of,
    resolve,
    resolve_at_start,
)
from ipamd.settings import Settings, SettingsError
from ipamd.settings_report import SettingsReport, for_type, settings_report

log = logging.getLogger(__name__)

SETTINGS_FOLDER = Path("/etc/enid/settings")
"""Where the ConfigMap is mounted."""

LOOK_SECONDS = 5.0
"""Between looks at the folder. kubelet takes up to a minute to bring a change there; a look
is some ten stat calls."""

TRIES = 3
"""Readings in a row that a change may spoil, until the next look."""

MAX_FILE_BYTES = 1 << 20
"""A ConfigMap holds a mebibyte at most; what is larger is no file of one."""

Fingerprint = tuple[tuple[str, int, int, int], ...]


class FolderUnreadableError(Exception):
    """The ConfigMap's folder cannot be read whole; the text says why."""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class Folder:
    """The folder where a ConfigMap is mounted; without *path*, or while it is not there, none."""

    def __init__(self, path: Path | str | None, read: Callable[[Path], str] = _read) -> None:
        self._read = read
        self._path = None if path is None else Path(path)
        self._seen: Fingerprint | None = None
        self._files: Mapping[str, str] | None = None

    def look(self) -> Mapping[str, str] | None:
        """Return the files' texts by name, None if there is no folder.

        Two equal looks around a reading tell that it was of one ConfigMap. Raises
        FolderUnreadableError.
        """
        if self._path is None:
            return None
        for _ in range(TRIES):
            found = _fingerprint(self._path)
            if found == self._seen:
                break
            files = None if found is None else _texts(self._path, found, self._read)
            if _fingerprint(self._path) == found:
                self._seen, self._files = found, files
                break
        return self._files


def _root(path: Path) -> Path:
    """Return where the files of *path* really are.

    kubelet writes a new folder, swaps the link `..data` to it by one rename, and tidies the
    links of single files up afterwards: only through `..data` is a ConfigMap seen whole.
    """
    swapped = path / "..data"
    return swapped.resolve() if swapped.is_symlink() else path


def _fingerprint(path: Path) -> Fingerprint | None:
    """Return what changes when a file does; None without a folder."""
    try:
        with os.scandir(_root(path)) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError as error:
        if not path.exists():
            return None
        raise FolderUnreadableError(f"{path} cannot be read: {error.strerror}") from error
    return tuple(
        sorted((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
    )


def _texts(path: Path, found: Fingerprint, read: Callable[[Path], str]) -> Mapping[str, str]:
    texts, root = {}, _root(path)
    for name, _, _, size in found:
        if size > MAX_FILE_BYTES:
            raise FolderUnreadableError(f"{path / name} has {size} bytes: no ConfigMap holds that")
        try:
            texts[name] = read(root / name)
        except OSError as error:
            raise FolderUnreadableError(
                f"{path / name} cannot be read: {error.strerror}"
            ) from error
        except UnicodeDecodeError as error:
            raise FolderUnreadableError(f"{path / name} is not UTF-8") from error
    return texts


class Configuration:
    """What holds, and what was asked for.

    *labels* and *annotations* are what is known of the node at start, such as what a former
    life noted; `node_changed` brings them up to date. Raises SettingsError.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        folder: Path | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self.on_change: Callable[[Resolved, Resolved], None] = lambda _old, _new: None
        """Called on the loop after the settings, or where one came from, have changed."""
        self.unfit: Callable[[Settings], str] = lambda _: ""
        """Asked before a change is made: why this node cannot live by it, "" if it can."""
        self._folder = Folder(folder)
        self._unreadable: str | None = None
        self._refused: str | None = None
        self._told: str | None = None
        self._sources = self._with_files(
            _with_node(
                Sources(environ=dict(environ), memory_bytes=memory_bytes),
                labels or {},
                annotations or {},
            )
        )
        self.resolved, self._refused = resolve_at_start(layers_of(self._sources))
        logs.set_level(self.settings.log_level)
        _say(self.resolved, None)
        self._say_complaint()

    @property
    def settings(self) -> Settings:
        """What holds now."""
        return self.resolved.settings

    @property
    def complaint(self) -> str | None:
        """Why the last change is not made; None when all that was asked for holds."""
        return self._unreadable or self._refused

    def report(self, limits: InstanceLimits | None = None) -> SettingsReport:
        """Return what `enid settings` shows, on an instance of that type where it is known."""
        resolved = self.resolved if limits is None else for_type(self.resolved, limits)
        return settings_report(resolved, self.complaint)

    async def watch(self, every_seconds: float = LOOK_SECONDS) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            self.look()

    def look(self) -> None:
        """Take up what has changed in the folder."""
        self._adopt(self._with_files(self._sources))

    def node_changed(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
        """Take up what has changed on the node; only our label and annotation are looked at."""
        self._adopt(_with_node(self._sources, labels, annotations))

    def _with_files(self, sources: Sources) -> Sources:
        """Return *sources* with the folder's files, or with those from before it was unreadable."""
        try:
            files = self._folder.look()
        except FolderUnreadableError as error:
            self._unreadable = str(error)
            return sources
        self._unreadable = None
        return replace(sources, files=files)

    def _adopt(self, sources: Sources) -> None:
        if sources != self._sources:
            self._sources = sources
            try:
                new = resolve(layers_of(sources), self.resolved)
            except SettingsError as error:
                self._refused = str(error)
            else:
                self._refused = self.unfit(new.settings) or None
                if self._refused is None:
                    self._change(new)
        self._say_complaint()

    def _change(self, new: Resolved) -> None:
        old, self.resolved = self.resolved, new
        if new != old:
            logs.set_level(new.settings.log_level)
            _say(new, old)
            self.on_change(old, new)

    def _say_complaint(self) -> None:
        complaint, told = self.complaint, self._told
        self._told = complaint
        if complaint is not None and complaint != told:
            log.error("settings not taken, the former ones hold", extra={"reason": complaint})
        elif complaint is None and told is not None:
            log.info("settings are valid again")


def _with_node(
    sources: Sources, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Sources:
    return replace(
        sources,
        profile=labels.get(PROFILE_LABEL),
        annotation=annotations.get(SETTINGS_ANNOTATION),
    )


def _say(new: Resolved, old: Resolved | None) -> None:
    """Log each value that is not the default or has changed, and each warning that is new."""
    for name, chosen in new.chosen.items():
        was = None if old is None else old.chosen[name]
        if chosen != was and (was is not None or chosen.origin is not Origin.DEFAULT):
            log.info(
                "setting",
                extra={
                    "variable": name,
                    "value": shown(chosen.value),
                    "origin": chosen.where or chosen.origin.value,
                },
            )
    for warning in new.warnings:
        if old is None or warning not in old.warnings:
            log.warning("settings", extra={"reason": warning})
