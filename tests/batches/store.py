"""A real S3 server on this machine, with a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from pyarrow import fs

KEY, SECRET = "AKIDEXAMPLE", "wJalr/XUtnFEMI+bPxRfi"
BUCKET = "films"


class Store:
    """The server; it has forgotten everything when it ends."""

    def __init__(self, port: int) -> None:
        self.place = f"127.0.0.1:{port}"
        self._fs = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, endpoint_override=self.place, scheme="http", region="us-east-1",
            allow_bucket_creation=True,
        )  # fmt: skip
        self._fs.create_dir(BUCKET)

    def address(self, name: str, secret: str = SECRET.replace("/", "%2F").replace("+", "%2B")) -> str:
        """The address of a name, with everything that is needed to reach it."""
        options = f"endpoint_override={self.place}&scheme=http&region=us-east-1"
        return f"s3://{KEY}:{secret}@{BUCKET}/{name}?{options}"

    def put(self, name: str, data: bytes) -> None:
        with self._fs.open_output_stream(f"{BUCKET}/{name}") as stream:
            stream.write(data)

    def put_all(self, folder: Path, name: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def tree(self, name: str) -> dict[str, bytes]:
        """All objects below a name."""
        return {path: self._fs.open_input_stream(f"{BUCKET}/{name}/{path}").read() for path in self.names(name)}

    def names(self, name: str) -> list[str]:
        """The names of all objects below one."""
        found = self._fs.get_file_info(fs.FileSelector(f"{BUCKET}/{name}", recursive=True, allow_not_found=True))
        return [one.path.removeprefix(f"{BUCKET}/{name}/") for one in found if one.is_file]

    def done(self, name: str) -> int:
        """How many sources are done, by the manifest and what is added to it."""
        done = 0
        for path in self.names(name):
            if path.startswith("manifest.jsonl"):
                with suppress(OSError):  # meanwhile put into one
                    done += self._fs.open_input_stream(f"{BUCKET}/{name}/{path}").read().count(b'"state":"done"')
        return done

    def close_to_all(self) -> None:
        """Let nobody do anything from here on: no key is known."""
        httpx.post(f"http://{self.place}/moto-api/reset-auth", content=b"0").raise_for_status()


@contextmanager
def store() -> Iterator[Store]:
    """Start the server on a free port of 127.0.0.1."""
    from moto.server import ThreadedMotoServer  # takes seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        httpx.post(f"http://127.0.0.1:{port}/moto-api/reset").raise_for_status()
        yield Store(port)
    finally:
        server.stop()
