"""Streaming parser of a form with one file: what ``curl -F file=@photo.jpg`` and an HTML page send (RFC 7578).

Neither memory nor disk holds more than the current piece, however large the body.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from perception.server.problems import Problem

FORM = "multipart/form-data"

MOST_AROUND = 16 << 10
"""Size limit of a form without its file, in bytes: boundaries, headers, and rare parts of the format."""

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients could fill the log


class FormFile:
    """The file of a form that contains just one. Iterate over it for its bytes, once it is open.

    Args:
        stream: the body.
        boundary: of the parts, from the body's ``Content-Type``.

    Attributes:
        kind: media type that the client gave it, in lower case, or nothing.
        name: file name that the client gave it; for people, never a path.

    Raises:
        Problem: there is no such boundary.
    """

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        if not boundary:
            raise Problem(f"the Content-Type of a form must give its boundary: {FORM}; boundary=...")
        self.kind = ""
        self.name = ""
        self._stream = stream
        self._begun = self._complete = False
        self._around = 0
        self._pieces: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        try:
            self._parser = MultipartParser(
                boundary,
                callbacks={
                    "on_part_begin": self._part,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._begin,
                    "on_part_data": lambda data, start, end: self._pieces.append(data[start:end]),
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise Problem("the boundary of the form is too long") from None

    async def open(self) -> None:
        """Read up to the beginning of the file; ``kind`` and ``name`` are known then.

        Raises:
            Problem: not a form, or none with a file in it.
        """
        while not self._begun:
            if not await self._read():
                raise Problem("the form contains no file; send one: -F file=@NAME")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file.

        Raises:
            Problem: the form is damaged, cut short, or contains more than one file.
        """
        while True:
            if self._pieces:
                piece, self._pieces = b"".join(self._pieces), []
                if piece:
                    yield piece
            elif not await self._read():
                return

    async def _read(self) -> bool:
        """Parse the next piece of the body; False if there was none."""
        piece = await anext(self._stream, b"")
        if not piece:
            if self._begun and not self._complete:
                raise Problem("the form is cut short: its last boundary is missing")
            return False
        try:
            self._parser.write(piece)
        except FormParserError:
            raise Problem("the form cannot be read") from None
        self._around += len(piece) - sum(map(len, self._pieces))
        if self._around > MOST_AROUND:
            raise Problem("the form contains more than the file; send the file only")
        return True

    def _part(self) -> None:
        if self._begun:
            raise Problem(
                "the form contains more than one part; send one file, and settings in the address (?score=0.4)"
            )
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" not in options:
            raise Problem("the form contains a field and no file; send -F file=@NAME, and settings in the address")
        self.name = options[b"filename"].decode("utf-8", "replace")
        kind, _ = parse_options_header(self._headers.get(b"content-type", b""))
        self.kind = kind.decode("latin-1").strip()
        self._begun = True

    def _end(self) -> None:
        self._complete = True
