//! Address management: which address belongs to which attachment.

mod bitmap;
mod range;
mod record;
mod store;

pub use range::{Range, RangeSet};
pub use record::{Address, Record};
pub use store::{Lease, Store};
