"""Takes requests from the host and gives it the answers of `greeting`.

Each request runs in a fresh sandbox, so a variable set here is not there for the next one. What is done while this
module is loaded is done once, when the component is built.
"""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, Method_Get, OutgoingBody, OutgoingResponse, ResponseOutparam

import greeting


class IncomingHandler(exports.IncomingHandler):
    """The one export of a service."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        is_get = isinstance(request.method(), Method_Get)
        status, text = greeting.answer(is_get, request.path_with_query() or "/")
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
        OutgoingBody.finish(body, None)
