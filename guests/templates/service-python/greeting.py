"""What the service answers. It knows nothing of its host, so that a test can call it."""

from urllib.parse import urlsplit


def answer(is_get: bool, path_with_query: str) -> tuple[int, str]:
    """Returns the status and the text for a request."""
    if not is_get:
        return 405, "there is only GET here\n"
    name = urlsplit(path_with_query).path.strip("/") or "world"
    print(f"{name} is greeted")
    return 200, f"good day, {name}\n"
