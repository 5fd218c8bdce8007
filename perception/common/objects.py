"""Object stores (``s3://``, ``gs://``) through pyarrow: names, and paths that do what those of files do.

An address may have credentials and options: ``s3://KEY:SECRET@bucket/videos?endpoint_override=localhost:9000``.
`remember` keeps them for this process and gives the plain name, ``s3://bucket/videos``, which is all that is ever
written and printed; other processes get them by `remembered`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from perception.errors import UsageError

SCHEMES = ("s3", "gs")

_ADDRESS = re.compile(r"\w+://(?:[^/?#@\s]*@)?[^/?#@:\s]+(?:/[^?#@]*)?(?:\?[^#]*)?")
_NAME = re.compile(rf"({'|'.join(SCHEMES)})://([^/?#@]+)(/[^?#]*)?", re.IGNORECASE)
_options: dict[str, str] = {}
"""What belongs to a bucket's address besides its name, by ``scheme://bucket``: user information, query."""
_systems: dict[str, Any] = {}
_listed: dict[str, dict[str, list[int]]] = {}
"""States of all objects below some names, while `listed` is in force."""
_CHUNK = 1 << 20


class ObjectError(OSError):
    """A store refuses, or cannot be reached; ``strerror`` is one line."""


def is_object(name: str | Path) -> bool:
    """Return whether a name is one in an object store."""
    return str(name).partition("://")[0].lower() in SCHEMES and "://" in str(name)


def remember(address: str) -> str:
    """Return the plain name of an address, whose credentials and options this process knows from here on.

    Raises:
        UsageError: it is no address of an object; the same bucket was given with other options.
    """
    try:
        parts = urlsplit(address)
        scheme, bucket = parts.scheme.lower(), parts.netloc.rpartition("@")[2]
    except ValueError:
        scheme, bucket = "", ""
    if scheme not in SCHEMES or not bucket or parts.fragment:
        raise UsageError(
            f"not an address of an object: {SCHEMES[0]}://BUCKET/NAME is expected", f"{scheme or '...'}://..."
        )
    store, user = f"{scheme}://{bucket}", parts.netloc.rpartition("@")[0]
    given = f"{user}?{urlencode(sorted(parse_qsl(parts.query)))}"
    if given != "?" or store not in _options:
        before = _options.setdefault(store, given)
        if before != given:
            if before != "?":
                raise UsageError("is given twice with different credentials or options; give them once", store)
            _options[store] = given
            _systems.pop(store, None)
    path = parts.path
    folder = "/" if path.endswith("/") else ""
    inside = "/".join(part for part in path.split("/") if part)
    return f"{store}/{inside}{folder if inside else ''}"


def remembered() -> dict[str, str]:
    """Return what `remember` has kept, secrets too, for `restore` in another process."""
    return dict(_options)


def restore(options: Mapping[str, str]) -> None:
    """Keep what another process has remembered."""
    for store, given in options.items():
        if _options.get(store) != given:
            _options[store] = given
            _systems.pop(store, None)


def plain(name: str) -> str:
    """Return what `remember` would of an address, without keeping anything; ``s3://...`` of what is none."""
    parts = urlsplit(name) if _ADDRESS.fullmatch(name) else None
    scheme = name.partition("://")[0].lower()
    return f"{scheme}://..." if parts is None else f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def place(name: str | Path) -> Place:
    """Return the path of a name: of a file, or of an object."""
    return ObjectPath(str(name)) if is_object(name) else Path(name)


def join(folder: str, name: str) -> str:
    """Return the name of what lies in a folder, or below a name that ends in a store."""
    return f"{folder.rstrip('/')}/{name}" if is_object(folder) else str(Path(folder) / name)


def _system(store: str) -> Any:
    """Return pyarrow's file system of a bucket.

    Raises:
        ObjectError: there is none with these options.
    """
    if store not in _systems:
        import pyarrow as pa
        from pyarrow import fs

        scheme, _, bucket = store.partition("://")
        user, _, query = _options.get(store, "?").partition("?")
        address = f"{scheme}://{user}{'@' if user else ''}{bucket}/{'?' if query else ''}{query}"
        try:
            _systems[store] = fs.FileSystem.from_uri(address)[0]
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ObjectError(0, _said(error)) from None
    return _systems[store]


def _said(error: BaseException) -> str:
    """Return one line without what an address may have of secrets."""
    text = " ".join(str(error).split())
    for given in _options.values():
        for secret in given.partition("?")[0].split(":"):
            for spelling in filter(None, {secret, unquote(secret)}):
                text = text.replace(spelling, "...")
    if "ACCESS_DENIED" in text or "HTTP status 403" in text or "PermissionDenied" in text or "AccessDenied" in text:
        return "no permission; check the credentials, and what they may do with this bucket"
    if "NO_SUCH_BUCKET" in text or "NoSuchBucket" in text:
        return "there is no such bucket"
    return text[:300]


class ObjectPath:
    """A name in an object store, with the methods of `pathlib.Path` that a batch uses. There are no folders.

    Args:
        name: as `remember` gives it.

    Methods raise `ObjectError` where the store refuses.
    """

    def __init__(self, name: str) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            raise UsageError("not a name of an object", name.partition("://")[0])
        self.store = f"{found[1].lower()}://{found[2]}"
        self._inside = PurePosixPath((found[3] or "").strip("/"))

    def __str__(self) -> str:
        inside = self._inside.as_posix()
        return self.store if inside == "." else f"{self.store}/{inside}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __truediv__(self, other: str | PurePath) -> ObjectPath:
        return ObjectPath(f"{self}/{PurePath(other).as_posix()}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        return self._inside.name

    @property
    def stem(self) -> str:
        return self._inside.stem

    @property
    def suffix(self) -> str:
        return self._inside.suffix

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(f"{self.store}/{self._inside.parent.as_posix()}".removesuffix("/."))

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        return self._inside.relative_to(other._inside)

    @property
    def _key(self) -> str:
        inside = self._inside.as_posix()
        bucket = self.store.partition("://")[2]
        return bucket if inside == "." else f"{bucket}/{inside}"

    def _call(self, method: str, *args: Any) -> Any:
        import pyarrow as pa

        try:
            return getattr(_system(self.store), method)(*args)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, ObjectError):
                raise
            raise ObjectError(0, _said(error)) from error

    def state(self) -> list[int]:
        """Return size in bytes and time of change in nanoseconds; nothing where there is no such object."""
        for root, found in _listed.items():
            if str(self).startswith(f"{root}/"):
                return found.get(str(self), [])
        return _state(self._call("get_file_info", self._key))

    def exists(self) -> bool:
        return bool(self.state())

    def is_file(self) -> bool:
        return bool(self.state())

    def is_dir(self) -> bool:
        """Return whether names begin with this one and a slash."""
        from pyarrow import fs

        return bool(self._call("get_file_info", self._key).type == fs.FileType.Directory)

    def files(self) -> list[tuple[ObjectPath, list[int]]]:
        """Return all objects below this name in order, each with its `state`."""
        from pyarrow import fs

        found = self._call("get_file_info", fs.FileSelector(self._key, recursive=True, allow_not_found=True))
        scheme = self.store.partition("://")[0]
        return sorted(
            ((ObjectPath(f"{scheme}://{one.path}"), _state(one)) for one in found if one.is_file),
            key=lambda one: str(one[0]),
        )

    def read_bytes(self) -> bytes:
        with self._call("open_input_stream", self._key) as stream:
            return bytes(stream.read())

    def write_bytes(self, data: bytes) -> None:
        """Write an object, which is there whole or not at all."""
        self._write(lambda stream: stream.write(data))

    def download(self, target: Path) -> None:
        """Copy an object into a file."""
        with self._call("open_input_stream", self._key) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK)

    def upload(self, source: Path) -> None:
        """Copy a file into an object."""
        with source.open("rb") as file:
            self._write(lambda stream: shutil.copyfileobj(file, stream, _CHUNK))

    def _write(self, fill: Callable[[Any], object]) -> None:
        import pyarrow as pa

        stream = self._call("open_output_stream", self._key)
        try:
            fill(stream)
            stream.close()
        except (OSError, pa.ArrowException) as error:
            raise ObjectError(0, _said(error)) from error

    def replace(self, target: ObjectPath) -> None:
        """Give an object another name in its bucket, at once."""
        self._call("move", self._key, target._key)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._call("delete_file", self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_all(self) -> None:
        """Remove all objects below this name."""
        with suppress(FileNotFoundError):
            self._call("delete_dir", self._key)


@contextmanager
def listed(names: Iterable[str]) -> Iterator[None]:
    """Let the states of all objects below these names be those of now: one listing takes the place of many questions.

    Args:
        names: of objects; others are passed over.

    Raises:
        ObjectError: a store refuses.
    """
    for name in filter(is_object, names):
        root = ObjectPath(name)
        _listed[str(root)] = {str(path): state for path, state in root.files()}
    try:
        yield
    finally:
        _listed.clear()


Place: TypeAlias = Path | ObjectPath
"""Where a file or an object is."""


def relative(path: Place, folder: Place) -> PurePath:
    """Return the path of what lies below a place, from there."""
    if isinstance(path, ObjectPath) and isinstance(folder, ObjectPath):
        return path.relative_to(folder)
    assert isinstance(path, Path) and isinstance(folder, Path)
    return path.relative_to(folder)


def publish(draft: Place, target: Place) -> None:
    """Give a file, or an object, the name that it is for, at once.

    Raises:
        OSError: it cannot have it.
    """
    if isinstance(draft, ObjectPath) and isinstance(target, ObjectPath):
        draft.replace(target)
        return
    assert isinstance(draft, Path) and isinstance(target, Path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(target)


def _state(info: Any) -> list[int]:
    return [info.size, info.mtime_ns or 0] if info.is_file else []


def files_below(folder: Place) -> list[Place]:
    """Return all files, or objects, below a place in order."""
    if isinstance(folder, ObjectPath):
        return [path for path, _ in folder.files()]
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
