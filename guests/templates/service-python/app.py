"""Takes requests from the host and gives it the answers of `greeting`.

Each request runs in a fresh sandbox, so a variable set here is not there for the next one. What is done while this
module is loaded is done once, when the component is built.
"""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    Method_Head,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

import greeting

# The methods that are answered. The host has a class for each.
METHODS = {Method_Get: "GET", Method_Head: "HEAD"}


class IncomingHandler(exports.IncomingHandler):
    """The one export of a service."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        method = METHODS.get(type(request.method()), "")
        status, headers, text = greeting.answer(method, request.path_with_query() or "/")
        response = OutgoingResponse(Fields.from_list([(name, value.encode()) for name, value in headers.items()]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        if method != "HEAD":
            with body.write() as stream:
                for piece in greeting.slices(text.encode()):
                    stream.blocking_write_and_flush(piece)
        OutgoingBody.finish(body, None)
