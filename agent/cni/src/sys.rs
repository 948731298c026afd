//! The two places where the type system is not enough.
#![allow(
    unsafe_code,
    reason = "fork and borrowed file descriptors; each use says why it is sound"
)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, close, fork, pipe2, setsid, write};

/// The descriptor of something that owns one but does not lend it.
pub(crate) fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `owner`, which is borrowed as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Runs `work` in a child process that outlives this one. The descriptor becomes readable at its end:
/// with an error number in native order if it failed, with nothing if it did not.
pub(crate) fn in_background(work: impl FnOnce() -> Result<(), Errno>) -> Result<OwnedFd, Errno> {
    let (outcome, sink) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the plugin has one thread, so no lock is held by somebody who is not in the child. (The
    // agent, which has threads, does not come here.)
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(outcome),
        ForkResult::Child => {
            // Whoever started the plugin waits until nobody holds its standard output any more.
            for standard in 0..3 {
                let _ = close(standard);
            }
            // A signal to the group of the runtime is not meant for the child.
            let _ = setsid();
            if let Err(errno) = work() {
                let _ = write(&sink, &(errno as i32).to_ne_bytes());
            }
            // SAFETY: ends the process without running what the parent has registered to run at exit.
            unsafe { nix::libc::_exit(0) }
        }
    }
}
