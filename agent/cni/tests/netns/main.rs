//! The plugin on a real kernel, in network namespaces made for the occasion. Needs root:
//! `cargo test -p kindnet-cni --features fault-injection --test netns -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod add;
mod agent;
mod check;
mod del;
#[cfg(feature = "fault-injection")]
mod fault;
mod gc;
mod hostport;
mod support;
