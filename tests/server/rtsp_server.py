"""An RTSP server of one video file, by GStreamer: ``rtsp_server.py VIDEO PORT [ADDRESS]`` prints its port.

Run by the system's Python, which has the bindings (Debian: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good,
python3-gi). Each client gets the file from its beginning, at ``rtsp://127.0.0.1:PORT/live``, at its own pace.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    video, port, address = [*sys.argv[1:], "127.0.0.1"][:3]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(address)
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f'( filesrc location="{video}" ! qtdemux ! rtph264pay name=pay0 pt=96 config-interval=-1 )')
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit(f"port {port} cannot be listened on")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
