//! The link of a pod: a veth pair, routed.
//!
//! In the pod the address has the prefix length of its subnet but no route of its own; the only
//! neighbour is the gateway, and everything goes through it. On the host every link carries the
//! gateway's address and a route to its pod.
//!
//! Nothing here waits for the network: addresses skip duplicate address detection (RFC 4862, 5.4,
//! which has nobody to ask on a link of two), and both ends know the other's hardware address.

mod attach;
mod check;
mod detach;
mod events;
mod message;
mod name;
mod netns;

pub(crate) use attach::{Plan, configure, create, is_routed_to_a_pod, settle};
pub(crate) use check::check;
pub(crate) use detach::{Detach, exists, of_network, remove_now};
pub(crate) use name::{PREFIX, alias, host_name, mac};
pub(crate) use netns::{Netns, set_sysctl};
