"""What the service answers. It knows nothing of its host, so that a test can call it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

# How many bytes the host takes at once. It traps the guest that gives more.
SLICE = 4096


def answer(method: str, path_with_query: str) -> tuple[int, dict[str, str], str]:
    """Returns the status, the headers and the text for a request. HEAD is answered like GET; the text is not sent."""
    headers = {"content-type": "text/plain; charset=utf-8"}
    if method not in ("GET", "HEAD"):
        return 405, headers | {"allow": "GET, HEAD"}, "there is only GET and HEAD here\n"
    name = urlsplit(path_with_query).path.strip("/") or "world"
    print(f"{name} is greeted")
    return 200, headers, f"good day, {name}\n"


def slices(body: bytes) -> Iterator[bytes]:
    """Cuts a body into what the host takes at once."""
    for start in range(0, len(body), SLICE):
        yield body[start : start + SLICE]
