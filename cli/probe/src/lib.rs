//! The server and the client inside the check pods of `kindnetctl verify`.
//!
//! [`wire`] is what the two sides of an exec say to each other and [`frame`] what client and server
//! say over the network. Everything is synchronous, a thread per probe, so that the binary stays
//! small and starts in a millisecond.

pub mod frame;
pub mod run;
pub mod serve;
pub mod wire;
