"""An application on aiohttp, a program of its own: python aiohttp_app.py PORT KEEPALIVE_S"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import sys
import zlib

from aiohttp import WSMsgType, web

IMAGES = 20
SCRIPT = """
addEventListener("load", async () => {
  const widths = [...document.images].map(image => image.naturalWidth);
  const color = getComputedStyle(document.body).color;
  const socket = new WebSocket(`ws://${location.host}/app/socket`);
  const echoed = await new Promise((done, failed) => {
    const came = [];
    socket.onopen = () => { for (let i = 0; i < 100; i++) socket.send(`message ${i}`); };
    socket.onmessage = event => { came.push(event.data); if (came.length === 100) done(came); };
    socket.onerror = () => failed("socket");
  });
  const closed = new Promise(done => { socket.onclose = event => done([event.code, event.wasClean]); });
  socket.send("close 4001");
  const events = await new Promise((done, failed) => {
    const came = [];
    const source = new EventSource("/app/counted");
    source.onmessage = event => { came.push(event.data); if (came.length === 5) { source.close(); done(came); } };
    source.onerror = () => failed("events");
  });
  const upload = await fetch("/app/digest", {method: "POST", body: new Uint8Array(300000)});
  const report = {widths, color, echoed, closed: await closed, events, upload: (await upload.json()).size};
  await fetch("/app/report", {method: "POST", body: JSON.stringify(report)});
});
"""
PAGE = (
    '<!doctype html><html><head><link rel="icon" href="data:,"><link rel="stylesheet" href="/app/style.css">'
    '<script src="/app/script.js"></script></head><body>'
    + "".join(f'<img src="/app/image/{width}.png">' for width in range(1, IMAGES + 1))
    + "</body></html>"
)


def png(width: int) -> bytes:
    """A white picture, one pixel high."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = part(b"IHDR", struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + part(b"IDAT", zlib.compress(b"\0" + b"\xff" * width)) + part(b"IEND", b"")


class App:
    """Its handlers, and what they write down."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.reports: list[str] = []
        self.closes: list[int | None] = []
        self.acknowledged = asyncio.Semaphore(0)

    async def ok(self, request: web.Request) -> web.Response:
        await request.read()
        name = request.headers.get("X-Id", "")
        self.seen[name] = self.seen.get(name, 0) + 1
        return web.Response(text="ok")

    async def record(self, request: web.Request) -> web.Response:
        twice = [name for name, count in self.seen.items() if count > 1]
        found = {"seen": list(self.seen), "twice": twice, "reports": self.reports, "closes": self.closes}
        return web.json_response(found)

    async def digest(self, request: web.Request) -> web.Response:
        """What came of a body."""
        total, size = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            total.update(piece)
            size += len(piece)
        coding = request.headers.get("Transfer-Encoding", "")
        found = {"method": request.method, "size": size, "sha256": total.hexdigest(), "coding": coding}
        return web.json_response(found)

    async def full(self, request: web.Request) -> web.Response:
        """Not reached: `refuse` answers."""
        raise AssertionError

    async def refuse(self, request: web.Request) -> web.Response:
        return web.Response(status=413, text="too large")

    async def chunked(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.version >= (1, 1):
            response.enable_chunked_encoding()
        await response.prepare(request)
        for index in range(100):
            await response.write(f"piece {index}\n".encode())
        return response

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-Sent Events; each but the first waits for a POST to /app/acknowledge."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(20):
            await response.write(f"data: event {index}\n\n".encode())
            await self.acknowledged.acquire()
        return response

    async def acknowledge(self, request: web.Request) -> web.Response:
        self.acknowledged.release()
        return web.Response(status=204)

    async def counted(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(5):
            await response.write(f"data: event {index}\n\n".encode())
        return response

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Echoes; `close CODE` closes, `ping` pings."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT and message.data.startswith("close "):
                await socket.close(code=int(message.data[6:]), message=b"as asked")
            elif message.type == WSMsgType.TEXT and message.data == "ping":
                await socket.ping(b"are you there")
            elif message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        self.closes.append(socket.close_code)
        return socket

    async def start(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/app/page")

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def style(self, request: web.Request) -> web.Response:
        return web.Response(text="body { color: rgb(1, 2, 3) }", content_type="text/css")

    async def script(self, request: web.Request) -> web.Response:
        return web.Response(text=SCRIPT, content_type="text/javascript")

    async def image(self, request: web.Request) -> web.Response:
        return web.Response(body=png(int(request.match_info["width"])), content_type="image/png")

    async def report(self, request: web.Request) -> web.Response:
        self.reports.append(await request.text())
        return web.Response(status=204)

    def made(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        router = app.router
        for path in ("record", "chunked", "events", "counted", "socket", "start", "page"):
            router.add_get(f"/app/{path}", getattr(self, path))
        router.add_get("/app/style.css", self.style)
        router.add_get("/app/script.js", self.script)
        router.add_get("/app/image/{width}.png", self.image)
        router.add_route("*", "/app/digest", self.digest)
        router.add_route("*", "/app/full", self.full, expect_handler=self.refuse)
        router.add_post("/app/acknowledge", self.acknowledge)
        router.add_post("/app/report", self.report)
        router.add_route("*", "/app", self.ok)
        return app


if __name__ == "__main__":
    web.run_app(
        App().made(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        keepalive_timeout=float(sys.argv[2]),
        access_log=None,
        print=None,
    )
