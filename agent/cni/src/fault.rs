//! Places to die at, for the tests that kill the plugin between any two of its steps.
//!
//! With the feature `fault-injection` and `KINDNET_CNI_DIE_AT=n` in the environment, the process
//! kills itself at the n-th step it reaches. Without the feature the macro is nothing.

/// Marks the end of a step that changed something outside this process.
macro_rules! step {
    () => {
        #[cfg(feature = "fault-injection")]
        $crate::fault::reached();
    };
}

pub(crate) use step;

#[cfg(feature = "fault-injection")]
pub(crate) fn reached() {
    use std::sync::atomic::{AtomicU32, Ordering};

    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let wanted = std::env::var("KINDNET_CNI_DIE_AT").ok();
    if wanted.and_then(|n| n.parse().ok()) == Some(count) {
        // The signal takes effect before the system call returns.
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}
