"""Files by path, folder or glob, on this machine or in S3."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from byzerllm_adapters.errors import ByzerError

from ..paths import shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?=/)(?://)?")
_S3 = ("s3", "s3a", "s3n")
_WILD = re.compile(r"[*?[]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_SPARKS_NULL = "__HIVE_DEFAULT_PARTITION__"
_NAMED = 6
"""Names of other files that an error shows."""


@dataclass(frozen=True)
class File:
    """A file that can be opened.

    Attributes:
        system: Where it is.
        path: What it is called there; in S3 the bucket comes first.
        below: Its folders below the one that was asked for, and its name.
    """

    system: fs.FileSystem
    path: str
    below: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What an error calls it: relative where that is shorter."""
        return self.url if self._remote else shown(self.path)

    @property
    def url(self) -> str:
        """What the column ``file`` holds: an absolute path, or ``s3://bucket/key``."""
        return f"s3://{self.path}" if self._remote else self.path

    @property
    def keys(self) -> dict[str, str | None]:
        """What folders called ``name=value`` say, as Spark writes them."""
        pairs = [folder.partition("=") for folder in self.below[:-1] if "=" in folder]
        return {name: None if value == _SPARKS_NULL else unquote(value) for name, _, value in pairs}

    @property
    def _remote(self) -> bool:
        return bool(self.system.type_name != "local")

    def open(self, encoding: str = "utf-8") -> pa.NativeFile:
        """Return its bytes as a stream, decompressed as its name's ending says, in UTF-8 if it is text."""
        import pyarrow as pa

        stream = self.system.open_input_stream(self.path, compression="detect")
        plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        return stream if plain else pa.transcoding_input_stream(stream, encoding, "utf-8")

    def open_anywhere(self) -> pa.NativeFile:
        """Return its bytes for reading at any place."""
        return self.system.open_input_file(self.path)


def find(path: str) -> list[File]:
    """Return the files that a path stands for, sorted by path.

    Args:
        path: A file, a folder (all files below it) or a glob (``*``, ``?``, ``[ab]``, ``{one,other}``; ``**`` stands
            for any folders).
            Relative to the working folder; ``~``, ``file://`` and ``s3://bucket/…`` are understood. In folders and
            globs, names that begin with ``.`` or ``_`` are skipped, as Spark does. For S3, credentials, region and
            ``AWS_ENDPOINT_URL`` come from the environment.

    Raises:
        ByzerError: nothing is there, or it cannot be listed.
    """
    from pyarrow.fs import FileType

    if not path.strip():
        raise ByzerError("the path is empty", do="write a file, a folder or a glob")
    system, place = _located(path.strip())
    files: dict[str, File] = {}
    with readable(path):
        literal = system.get_file_info(place).type != FileType.NotFound
        for one in [place] if literal else _alternatives(place):
            info = system.get_file_info(one)
            root, found = one, [info]
            if info.type == FileType.NotFound and _WILD.search(one):
                root, *segments = _split_at_wildcard(one)
                found = list(_expanded(system, root, segments))
            for file in {file for entry in found for file in _files_in(system, entry)}:
                files[file] = File(system, file, tuple(file[len(root) :].strip("/").split("/")))
    if not files:
        raise _nothing(system, place, path)
    return [files[name] for name in sorted(files)]


def _alternatives(place: str) -> Iterator[str]:
    """Yield what a path with ``{one,other}`` stands for; braces may stand in braces."""
    braces = _BRACES.search(place)
    if braces is None:
        yield place
        return
    for choice in braces[1].split(","):
        yield from _alternatives(f"{place[: braces.start()]}{choice}{place[braces.end() :]}")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what a file system or Arrow says of a file into an error that names it."""
    import pyarrow as pa

    try:
        yield
    except ByzerError:
        raise
    except (OSError, pa.ArrowException, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ByzerError(f"{name} cannot be read", where=_one_line(reason), do=_advice(name)) from None


def _located(path: str) -> tuple[Any, str]:
    """Return the file system of a path and what the path is there."""
    from pyarrow import fs

    match = _SCHEME.match(path)
    scheme = match[1].lower() if match else "file"
    rest = path[match.end() :] if match else path
    if scheme in _S3:
        return _s3(), rest.rstrip("/")
    if scheme == "file":
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(rest))
    raise ByzerError(f"{scheme}:// cannot be read here: {path}", do="local paths, file:// and s3:// can")


def _s3() -> Any:
    """Return S3 as the environment has it: Arrow reads the credentials, not the endpoint's scheme."""
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not endpoint:
        return fs.S3FileSystem(region=region)
    scheme, separator, host = endpoint.rpartition("://")
    return fs.S3FileSystem(
        endpoint_override=host.rstrip("/"), scheme=scheme if separator else "https", region=region or "us-east-1"
    )


def _split_at_wildcard(place: str) -> list[str]:
    """Return the folder above the first wildcard, then the segments below it."""
    segments = place.split("/")
    first = next(k for k, segment in enumerate(segments) if _WILD.search(segment))
    return ["/".join(segments[:first]) or "/", *segments[first:]]


def _expanded(system: Any, folder: str, segments: list[str]) -> Iterator[Any]:
    """Yield what is there of ``folder/segments``, looking only into folders that match."""
    from pyarrow.fs import FileSelector, FileType

    head, *rest = segments
    if head == "**" and rest:
        yield from _expanded(system, folder, rest)
    pattern = "*" if head == "**" else head
    for entry in system.get_file_info(FileSelector(folder, allow_not_found=True)):
        if not fnmatch.fnmatchcase(entry.base_name, pattern) or (_hidden(entry.base_name) and not _hidden(pattern)):
            continue
        if head == "**" and rest:
            deeper = segments
        elif rest:
            deeper = rest
        else:
            yield entry
            continue
        if entry.type == FileType.Directory:
            yield from _expanded(system, entry.path, deeper)


def _files_in(system: Any, entry: Any) -> Iterator[str]:
    """Yield a file itself, or all files below a folder but the hidden ones."""
    from pyarrow.fs import FileSelector, FileType

    if entry.type == FileType.File:
        yield entry.path
    elif entry.type == FileType.Directory:
        for below in system.get_file_info(FileSelector(entry.path, recursive=True)):
            inside = below.path[len(entry.path) :].strip("/").split("/")
            if below.type == FileType.File and not any(map(_hidden, inside)):
                yield below.path


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _nothing(system: Any, place: str, path: str) -> ByzerError:
    """Say what is there instead: the nearest folder above, and the name in it that is most alike."""
    from pyarrow.fs import FileSelector, FileType

    above, wanted = place, ""
    while "/" in above.strip("/"):
        above, _, wanted = above.rpartition("/")
        if system.get_file_info(above or "/").type == FileType.Directory:
            break
    entries = system.get_file_info(FileSelector(above or "/", allow_not_found=True))
    names = sorted(entry.base_name for entry in entries)
    near = difflib.get_close_matches(wanted, names, n=1)
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    holder = File(system, above or "/").name
    return ByzerError(
        f"no file matches {path}",
        where=f"{holder} holds {listed or 'nothing'}",
        do=f"did you mean {near[0]}?" if near else f"paths are relative to {Path.cwd()}",
    )


def _one_line(text: str, width: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _advice(name: str) -> str:
    if name.startswith("s3"):
        return "S3 takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL from the environment"
    return ""
