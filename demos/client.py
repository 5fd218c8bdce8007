"""Send a picture or a video to a running server (`perception live`) and save the results.

python demos/client.py photo.jpg                         # boxes and shares as JSON, and photo-annotated.png
python demos/client.py street.mp4                        # street-annotated.mp4 and street-annotated.jsonl
python demos/client.py street.mp4 http://box:7860 TOKEN    # or https://example.org/perception, behind a proxy
"""

import json
import mimetypes
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin

path = Path(sys.argv[1])
server = (sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:7860").rstrip("/") + "/"
token = sys.argv[3] if len(sys.argv) > 3 else None
kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def ask(address: str, data: Any = None, **headers: str) -> bytes:
    """Return the server's answer; exit with its error, and retry while it is busy."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(urljoin(server, address), data, headers)) as answer:
                return answer.read()
        except HTTPError as error:
            if "Retry-After" not in error.headers:
                sys.exit(json.load(error)["error"])
            time.sleep(int(error.headers["Retry-After"]))
        except URLError as error:
            sys.exit(f"{server}: {error.reason}; is `perception live` running there?")


if kind.startswith("image/"):
    picture = path.read_bytes()
    print(json.dumps(json.loads(ask("v1/predict", picture, **{"Content-Type": kind})), indent=2))
    annotated = ask("v1/predict?opacity=0.4", picture, **{"Content-Type": kind, "Accept": "image/png"})
    path.with_name(f"{path.stem}-annotated.png").write_bytes(annotated)
else:
    job = json.loads(ask(f"v1/jobs?name={quote(path.name)}", path.read_bytes(), **{"Content-Type": kind}))
    while job["state"] not in ("done", "failed"):
        time.sleep(0.5)
        job = json.loads(ask(f"v1/jobs/{job['id']}"))
        print(
            f"{job['state']}: {job['progress']['frames']} of {job['progress']['total'] or '?'} frames", file=sys.stderr
        )
    if job["error"]:
        sys.exit(job["error"])
    for result, suffix in (("video", ".mp4"), ("jsonl", ".jsonl")):
        path.with_name(f"{path.stem}-annotated{suffix}").write_bytes(ask(job["results"][result]))
