"""Reads a ledger behind a place, line by line, over all of its parts.

A ledger is `ledger.jsonl`, which is written, and what it was before: parts that the agent rotated (`ledger-<20 digits>.jsonl`), and
files that a user moved it to, whatever their names, packed with gzip or not. `seq` numbers the lines over all parts.

Invariant: nothing is ever written here, no more than one line is in memory, and a line without its line break is left for later.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Optional, cast

logger = logging.getLogger("agent_sentinel.sync")

# A longer line is none of the agent's.
MOST_LINE_BYTES = 4 * 1024 * 1024

_ROTATED = re.compile(r"ledger-(\d{20})\.jsonl")
_OURS = re.compile(r"ledger(-\d{20})?\.jsonl")
# What lies beside a ledger and is no part of it: a part that isn't begun yet, a line that was cut short, and our own files.
_STRANGERS = re.compile(r".*\.new|.*\.torn-\d+|\..*|.*\.json|.*\.lock|.*\.head|interventions\.jsonl|sync-rejected\.jsonl")

# Device and inode: what a file is, under whatever name.
_Identity = tuple[int, int]

# Number, hash and keys of a line.
_Parsed = tuple[int, str, dict[str, Any]]

# Parts that were moved away while the platform could not be reached: more are let go, and counted as missing.
_MOST_HELD = 16

_BROKEN = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Place:
    """How far a ledger was read: up to and with line `seq`."""

    seq: int = 0
    hash: str = ""
    # The hash of the first line of its part: names the part, wherever it is moved.
    part: str = ""
    # Where in its part it begins.
    offset: int = 0


@dataclass(frozen=True)
class Line:
    """A line that is whole."""

    place: Place
    keys: dict[str, Any]
    size: int

    @property
    def seq(self) -> int:
        """Its number."""
        return self.place.seq


class _Part:
    """An open part. `id` and `first_seq` are its first line's."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        # A stranger has no ledger line at its beginning. Of a file with a ledger's name, one damaged line must not hide all others.
        first = self._first_line(3 if _OURS.fullmatch(name) else 1)
        self.id: Optional[str] = first[1] if first else None
        self.first_seq: int = first[0] if first else 0

    def _first_line(self, tries: int) -> Optional[tuple[int, str]]:
        offset = 0
        for _ in range(tries):
            size, parsed = self._next(offset)
            if parsed is not None:
                return parsed[0], parsed[1]
            offset += size
        return None

    def _next(self, offset: int) -> tuple[int, Optional[_Parsed]]:
        """How many bytes the line there has, 0 where it isn't whole yet; and what it says, if it is a ledger line."""
        self.file.seek(offset)
        raw = self.file.readline(MOST_LINE_BYTES + 1)
        if raw.endswith(b"\n"):
            return len(raw), _parsed(raw)
        size = len(raw)
        # Too long for a line; on to its end.
        while len(raw) >= MOST_LINE_BYTES and not raw.endswith(b"\n"):
            raw = self.file.readline(MOST_LINE_BYTES)
            size += len(raw)
        return (size if raw.endswith(b"\n") else 0), None

    def line_at(self, offset: int) -> Optional[tuple[int, str]]:
        """Number and hash of the line that begins there."""
        _, parsed = self._next(offset)
        return (parsed[0], parsed[1]) if parsed else None

    def lines(self, offset: int) -> Iterator[Line]:
        """The whole lines from there on. What is damaged is told and left out, never what stands behind it."""
        if self.id is None:
            return
        while True:
            size, parsed = self._next(offset)
            if size == 0:
                return
            if parsed is None:
                logger.warning("a line at byte %d of `%s` is no ledger line, and is left out", offset, self.name)
            else:
                seq, line_hash, keys = parsed
                yield Line(Place(seq, line_hash, self.id, offset), keys, size)
            offset += size


@dataclass(frozen=True)
class _Source:
    """Where a part is: at a path, or in a file that is kept open."""

    first_seq: int
    identity: _Identity
    size: int
    path: Path
    held: Optional[FileIO] = None
    is_current: bool = False

    def open(self) -> Optional[BinaryIO]:
        """None: it is gone, or can't be read."""
        return _again(self.held) if self.held is not None else _open(self.path)


class Ledger:
    """The ledger in a folder. One thread at a time reads it, and ends one reading before it begins another."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._current = home / "ledger.jsonl"
        # The part that is written, and those that were and are not yet read to their ends: kept open, so that their last lines still
        # come when somebody moves them out of the folder.
        self._held: dict[_Identity, FileIO] = {}
        # First lines never change, and a folder can hold many parts.
        self._firsts: dict[_Identity, int] = {}
        self._searched: frozenset[tuple[_Identity, int]] = frozenset()

    def close(self) -> None:
        """Gives back what is kept open."""
        for file in self._held.values():
            file.close()
        self._held.clear()

    def after(self, place: Place, ignored: frozenset[str], with_current: bool = True) -> Iterator[Line]:
        """The lines behind a place, oldest first. Parts in `ignored` belong to another ledger, which this one followed."""
        sources = self._sources()
        begin = max((source.first_seq for source in sources if source.first_seq <= place.seq + 1), default=0)
        last = place.seq
        for source in sources:
            if source.first_seq < begin:
                self._let_go(source)
            elif with_current or not source.is_current:
                for line in _lines_of(source, ignored, place):
                    if line.seq > last:
                        last = line.seq
                        yield line

    def found(self, missing: Sequence[tuple[int, int]], ignored: frozenset[str]) -> Iterator[Line]:
        """The lines of these ranges that have turned up since they were last looked for: a part that was moved back."""
        if not missing:
            return
        sources = self._sources()
        here = frozenset((source.identity, source.size) for source in sources)
        if here == self._searched:
            return
        last = 0
        for index, source in enumerate(sources):
            behind = sources[index + 1].first_seq if index + 1 < len(sources) else math.inf
            if any(start < behind and end >= source.first_seq for start, end in missing):
                for line in _lines_of(source, ignored, Place()):
                    if line.seq > last and any(start <= line.seq <= end for start, end in missing):
                        last = line.seq
                        yield line
        # Only once all was seen: whoever stops before comes back.
        self._searched = here

    def other_parts(self) -> frozenset[str]:
        """The ids of all parts but the one that is written."""
        others = [source for source in self._sources() if not source.is_current]
        return frozenset(part.id for source in others for part in _opened(source) if part.id is not None)

    def is_another(self, place: Place) -> bool:
        """Whether the ledger was begun anew since: its numbers start again, and what was read is no longer in it."""
        for part in self._current_part():
            return part.id is not None and part.first_seq <= place.seq and part.id != place.part
        return False

    def rewritten_from(self, place: Place) -> Optional[int]:
        """The first line of the part that is written, where the place is no longer in it: a power cut took lines that were read."""
        for part in self._current_part():
            if part.id == place.part and place.seq and part.line_at(place.offset) != (place.seq, place.hash):
                return part.first_seq
        return None

    def _current_part(self) -> Iterator[_Part]:
        file = _open(self._current)
        if file is not None:
            with file:
                yield _Part(file, self._current.name)

    def _sources(self) -> list[_Source]:
        """All parts that there are, by their first lines.

        The one that is written is opened before the folder is listed: whatever name it gets meanwhile, it is the same file, and its
        successor's turn comes with the next reading.
        """
        current = self._hold_current()
        sources: dict[_Identity, _Source] = {}
        for path, status in _files(self.home):
            identity = (status.st_dev, status.st_ino)
            name = _ROTATED.fullmatch(path.name)
            first_seq = int(name[1]) if name else self._first_seq(identity, path)
            if first_seq is not None and path != self._current:
                sources[identity] = _Source(first_seq, identity, status.st_size, path)
        # A file that is held can't be moved away any more.
        for identity, held in self._held.items():
            with _again(held) as file:
                part = _Part(file, self._current.name)
            if part.id is not None:
                is_current = identity == current
                size = 0 if is_current else os.fstat(held.fileno()).st_size
                sources[identity] = _Source(part.first_seq, identity, size, self._current, held, is_current)
        return sorted(sources.values(), key=lambda source: (source.first_seq, source.is_current))

    def _hold_current(self) -> Optional[_Identity]:
        """Opens the part that is written, if it isn't held yet."""
        try:
            file = open(self._current, "rb", buffering=0)
        except OSError:
            return None
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        if identity in self._held or not stat.S_ISREG(status.st_mode):
            file.close()
            return identity
        self._held[identity] = file
        if len(self._held) > _MOST_HELD:
            self._held.pop(next(iter(self._held))).close()
        return identity

    def _let_go(self, source: _Source) -> None:
        if source.held is not None and not source.is_current:
            self._held.pop(source.identity).close()

    def _first_seq(self, identity: _Identity, path: Path) -> Optional[int]:
        if identity not in self._firsts:
            file = _open(path)
            if file is None:
                return None
            with file:
                part = _part(file, path.name)
            if part is None or part.id is None:
                return None
            self._firsts[identity] = part.first_seq
        return self._firsts[identity]


def _lines_of(source: _Source, ignored: frozenset[str], place: Place) -> Iterator[Line]:
    for part in _opened(source):
        if part.id in ignored:
            return
        try:
            yield from part.lines(place.offset if part.id == place.part else 0)
        except _BROKEN as error:
            # A file that is still being packed, or a broken disk. What is behind it comes back as missing.
            logger.warning("`%s` can't be read to its end: %s", part.name, error)


def _opened(source: _Source) -> Iterator[_Part]:
    file = source.open()
    if file is None:
        return
    with file:
        part = _part(file, source.path.name)
        if part is not None:
            yield part


def _part(file: BinaryIO, name: str) -> Optional[_Part]:
    try:
        return _Part(file, name)
    except _BROKEN:
        return None


def _again(held: FileIO) -> BinaryIO:
    """The same file with an empty buffer: what was buffered may have been taken back since."""
    return os.fdopen(os.dup(held.fileno()), "rb")


def _open(path: Path) -> Optional[BinaryIO]:
    """A regular file, unpacked where it is packed; none where there is none that can be read."""
    try:
        # Asked first: to open a pipe would wait for its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        if path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        return open(path, "rb")
    except OSError:
        return None


def _files(home: Path) -> list[tuple[Path, os.stat_result]]:
    """What may be a part: the regular files of the folder, but for those that are known to be something else."""
    try:
        with os.scandir(home) as entries:
            found = [(home / entry.name, entry) for entry in entries if not _STRANGERS.fullmatch(entry.name)]
            return [(path, entry.stat()) for path, entry in found if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _parsed(raw: bytes) -> Optional[_Parsed]:
    """Number, hash and keys of a line; none where it is no ledger line."""
    if not raw.endswith(b"\n"):
        return None
    try:
        keys = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(keys, dict):
        return None
    seq, line_hash = keys.get("seq"), keys.get("hash")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1 or not isinstance(line_hash, str):
        return None
    return seq, line_hash, keys


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no json")
