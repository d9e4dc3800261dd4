"""``seran app``: the page that sharpens a scan in the browser, served by this machine to itself alone."""

import re
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from seran import progress
from seran.errors import BadInput

PAGE = Path(__file__).parent / "page"  # from `make web`
HERE = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next, what threads of WebAssembly need
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the address is another one next time
}


def server(port: int = 0) -> ThreadingHTTPServer:
    """A server of the page's files and nothing else, or `BadInput` if they are not here.

    Args:
        port: 0 for any that is free.
    """
    files = {f"/{path.relative_to(PAGE).as_posix()}": path for path in PAGE.rglob("*") if path.is_file()}
    if "/index.html" not in files:
        raise BadInput(
            "the page is not in this installation; `make web` in the source tree builds it (with npm)"
        )
    files["/"] = files["/index.html"]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', files["/"].read_text())
    headers = HEADERS | {"Content-Security-Policy": policy[1] if policy else "default-src 'none'"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = files.get(self.path.partition("?")[0])
            own = (f"{HERE}:{self.server.server_port}", f"localhost:{self.server.server_port}")  # type: ignore[attr-defined]
            if self.headers.get("Host") not in own:  # a name that somebody else made lead here
                self.send_error(403, "This page is for this machine alone")
            elif path is None:
                self.send_error(404)
            else:
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            progress.log.info(format, *args)

    try:
        return ThreadingHTTPServer((HERE, port), Handler)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"--port {port}: {why}; choose another one, or leave it out") from error


def app(port: int = 0, open: bool = True) -> str:
    """Serve a page on this machine that sharpens a scan in the browser; Ctrl-C ends it. Nothing is uploaded.

    The page is the one of docs/browser.md, for scans that bicubic reduction made coarser; only this machine
    reaches it. For scans as the scanner gave them the default of `seran upscale` is better.

    Args:
        port: on 127.0.0.1; 0 is any that is free.
        open: open the page in the browser.
    """
    with server(port) as made:
        address = f"http://{HERE}:{made.server_port}/"
        try:
            progress.say(f"{address} (Ctrl-C ends it)")
            sys.stdout.flush()
            if open:
                webbrowser.open(address)
            made.serve_forever()
        except KeyboardInterrupt:
            return "ended"
    return ""
