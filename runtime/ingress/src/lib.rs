//! The HTTP front door of a node and the way between nodes; knows no wasm.
//!
//! A request comes in at [`Ingress::serve`], is matched with a route, and goes to one of the service's allocations:
//! over [`Local`] to a worker on this node, or over [`Peers`] to the ingress of another node, which takes it up in
//! [`Ingress::serve_peer`] and never sends it on. Bodies stream both ways. There is no control plane in the path:
//! all that is known of the fleet is the last [`dunlin_model::RouteTable`] given to [`Ingress::set_routes`].
//!
//! Not here: how connections to workers and nodes are made (the agent), and what a guest does with a request.

mod body;
mod choice;
mod config;
mod failure;
mod forward;
mod head;
mod ingress;
mod outbound;
mod router;
mod server;
mod stream;
mod suspects;
mod table;
mod upstream;

pub use config::IngressConfig;
pub use failure::{FAILURE_HEADER, Failure, PROBLEM_JSON};
pub use head::{ALLOCATION_HEADER, FORWARDED_HEADER};
pub use ingress::Ingress;
pub use stream::{BoxedStream, Local, Peers, Stream};
