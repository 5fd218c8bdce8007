"""A WebRTC server that is published to by WHIP, as small as can be: ``whip_server.py FILE PORT`` prints its HTTP port.

Run by the system's Python, see `tests/server/rtsp_server.py`. It takes offers at
``http://127.0.0.1:PORT/live/whip``, with USER PASSWORD in the arguments of those who give them, answers the STUN of ICE
by itself, and has DTLS, SRTP and RTP done by GStreamer; H.264 is appended to the file, with start codes.
"""

import base64
import hashlib
import hmac
import http.server
import re
import socket
import ssl
import struct
import sys
import threading
import zlib

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import GLib, Gst, GstApp  # noqa: E402, F401

UFRAG, PWD = "teststests", "testtesttesttesttesttest"
CAPS = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload={}"


def stun_answer(request: bytes, peer: tuple[str, int]) -> bytes:
    """RFC 8489: success, with the address that the request came from."""
    cookie = struct.unpack(">I", request[4:8])[0]
    address = struct.unpack(">I", socket.inet_aton(peer[0]))[0] ^ cookie
    body = struct.pack(">HHBBHI", 0x0020, 8, 0, 1, peer[1] ^ cookie >> 16, address)
    head = struct.pack(">HH", 0x0101, len(body) + 24) + request[4:20]
    body += struct.pack(">HH", 0x0008, 20) + hmac.new(PWD.encode(), head + body, hashlib.sha1).digest()
    head = struct.pack(">HH", 0x0101, len(body) + 8) + request[4:20]
    return head + body + struct.pack(">HHI", 0x8028, 4, zlib.crc32(head + body) ^ 0x5354554E)


class Peer:
    """One publisher."""

    def __init__(self, offer: str, file: str) -> None:
        self.payload = re.search(r"a=rtpmap:(\d+) H264/90000", offer)[1]
        self.mid = re.search(r"a=mid:(\S+)", offer)[1]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.peer = None
        self.pipeline = Gst.parse_launch(
            "appsrc name=in is-live=true format=time do-timestamp=true ! dtlssrtpdec name=dec connection-id=c "
            f'dec.rtp_src ! capssetter replace=true caps="{CAPS.format(self.payload)}" ! rtph264depay '
            f'! video/x-h264,stream-format=byte-stream,alignment=au ! filesink location="{file}" append=true '
            "buffer-mode=unbuffered sync=false async=false "
            "dtlssrtpenc name=enc connection-id=c is-client=true "
            "dec.rtcp_src ! fakesink async=false dec.data_src ! fakesink async=false "
            "enc.src ! appsink name=out emit-signals=true sync=false async=false"
        )
        self.source = self.pipeline.get_by_name("in")
        self.pipeline.get_by_name("out").connect("new-sample", self.send)
        pem = self.pipeline.get_by_name("dec").get_property("pem")
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----END CERT") + 25])).hexdigest().upper()
        self.fingerprint = ":".join(digest[i : i + 2] for i in range(0, 64, 2))
        threading.Thread(target=self.receive, daemon=True).start()

    def answer(self) -> str:
        """The answer to the offer."""
        port = self.socket.getsockname()[1]
        lines = [
            "v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {self.mid}", "a=ice-lite",
            f"m=video 9 UDP/TLS/RTP/SAVPF {self.payload}", "c=IN IP4 127.0.0.1", f"a=mid:{self.mid}",
            f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", f"a=fingerprint:sha-256 {self.fingerprint}", "a=setup:active",
            "a=recvonly", "a=rtcp-mux", f"a=rtpmap:{self.payload} H264/90000",
            f"a=fmtp:{self.payload} packetization-mode=1;profile-level-id=42e01f",
            f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host",
        ]  # fmt: skip
        return "\r\n".join(lines) + "\r\n"

    def receive(self) -> None:
        while True:
            data, peer = self.socket.recvfrom(2048)
            if data[0] < 4:
                if data[:2] == b"\0\1":
                    self.socket.sendto(stun_answer(data, peer), peer)
                    if self.peer is None:
                        self.peer = peer
                        self.pipeline.set_state(Gst.State.PLAYING)
            else:
                self.source.emit("push-buffer", Gst.Buffer.new_wrapped(data))

    def send(self, sink: object) -> Gst.FlowReturn:
        buffer = sink.emit("pull-sample").get_buffer()
        self.socket.sendto(buffer.extract_dup(0, buffer.get_size()), self.peer)
        return Gst.FlowReturn.OK


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP side."""

    file = ""
    authorization = ""
    peers: list[Peer] = []  # noqa: RUF012

    def do_POST(self) -> None:
        offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path != "/live/whip":
            self.send_error(404)
            return
        given = self.headers.get("Authorization", "")
        if self.authorization and given != self.authorization:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        peer = Peer(offer, self.file)
        self.peers.append(peer)
        answer = peer.answer().encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/sdp")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/live/whip/1")
        self.end_headers()
        self.wfile.write(answer)

    def do_DELETE(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def main() -> None:
    Gst.init(None)
    needed = ("dtlssrtpdec", "dtlssrtpenc", "srtpdec", "capssetter", "rtph264depay")
    missing = [name for name in needed if Gst.ElementFactory.find(name) is None]
    if missing:
        sys.exit(f"no {', '.join(missing)}")
    Handler.file, _, *credentials = sys.argv[1:]
    if credentials:
        Handler.authorization = "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
