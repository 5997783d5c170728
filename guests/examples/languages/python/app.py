"""Greets in HTTP.

Each request runs in a fresh sandbox, so a variable set here is not there for the next one. What is done while this
module is loaded is done once, when the component is built.
"""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    """The one export of a service."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        text = f"hello from Python on {request.path_with_query()}\n"
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            answer = text.encode()
            # The host takes at most 4096 bytes at once, and traps the guest that gives more.
            for start in range(0, len(answer), 4096):
                stream.blocking_write_and_flush(answer[start : start + 4096])
        OutgoingBody.finish(body, None)
