//! Pure planners: what the cluster says in, what this node should look like out.
//!
//! Every feature has the same grammar. `plan` turns inputs into desired state, `diff` turns desired
//! and observed state into changes; both live here, do no I/O and are property-tested. `observe`,
//! `apply` and `cleanup` talk to the kernel and live in kindnet-net.

pub mod conflist;
pub mod masquerade;
pub mod routes;
