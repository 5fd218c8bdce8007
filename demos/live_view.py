"""Serve the live page from Python: your own source on http://127.0.0.1:7860, until Ctrl-C.

python demos/live_view.py                          # a street clip
python demos/live_view.py rtsp://camera/stream 8000
"""

import sys

from perception.server.app import serve
from perception.server.settings import make_settings
from perception.sources.clips import find_clip

clip = find_clip()
sources = {clip.name: {"uri": clip.uri, **clip.options}} if len(sys.argv) < 2 else {"mine": sys.argv[1]}
port = int(sys.argv[2]) if len(sys.argv) > 2 else 7860
serve(make_settings({"sources": sources, "port": port}), started=lambda url: print(url, flush=True))
