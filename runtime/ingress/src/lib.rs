//! The HTTP front door of a node and the way between nodes; knows no wasm.
//!
//! A request comes in at [`Ingress::serve`], is matched with a route, and goes to one of the service's allocations:
//! over [`Local`] to a worker on this node, or over [`Peers`] to the ingress of another node, which takes it up in
//! [`Ingress::serve_peer`] and never sends it on. Bodies stream both ways. There is no control plane in the path:
//! all that is known of the fleet is the last [`dunlin_model::RouteTable`] given to [`Ingress::set_routes`].
//!
//! Where it can, the ingress hands a client's whole connection to a worker ([`HandOff`]), which serves it with
//! [`serve_handed`], and takes it back when a request on it is for somebody else ([`Slot::take_back`]).
//!
//! Not here: how connections to workers and nodes are made (the agent), and what a guest does with a request.

mod access_log;
mod body;
mod certificates;
mod choice;
mod config;
mod doors;
mod failure;
mod forward;
mod hand_off;
mod handed;
mod handed_body;
mod handed_routes;
mod handed_server;
mod head;
mod ingress;
mod load;
mod namespace_routes;
mod origin;
mod outbound;
mod owners;
mod proxy_protocol;
mod rarely;
mod rate;
mod rewind;
mod router;
mod rules;
mod server;
mod shared_clients;
mod slot;
mod spelling;
mod stream;
mod suspects;
mod table;
mod turnstile;
mod upstream;

pub use access_log::AccessLog;
pub use certificates::{CertificateError, CertificateFiles, Certificates};
pub use config::IngressConfig;
pub use doors::{Doors, TlsDoor};
pub use failure::{FAILURE_HEADER, Failure, PROBLEM_JSON};
pub use handed::{Handed, HandedDoor, Handling, Order};
pub use handed_body::HandedBody;
pub use handed_server::{HandedEnd, serve_handed};
pub use head::{ACCOUNT_HEADER, ALLOCATION_HEADER, CLIENT_READS_TRAILERS, FORWARDED_HEADER, FUEL_HEADER};
pub use ingress::Ingress;
pub use server::Closing;
pub use slot::Slot;
pub use stream::{BoxedStream, HandOff, Local, Peers, Stream};
