//! Waits for a condition over a set of objects, by watching them.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

/// Every error a watch may give is worth another try: what ends waiting is the deadline.
pub(crate) type Changes = BoxStream<'static, ()>;

/// A store that follows the API server, and a stream with an item for each change of it. The store
/// only moves while the stream is polled.
pub(crate) fn follow<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, Changes)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, config)
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async move {
            event
                .inspect_err(|error| tracing::debug!(%error, "watch failed, will retry"))
                .ok()
                .map(|_| ())
        })
        .boxed();
    (store, changes)
}

/// Polls `changes` and asks `done` after each; `Err` when `limit` passes first.
pub(crate) async fn until<T>(
    mut changes: impl Stream<Item = ()> + Unpin,
    limit: Duration,
    mut done: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(result) = done() {
            return Ok(result);
        }
        match timeout_at(deadline, changes.next()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return done().ok_or(TimedOut),
        }
    }
}

/// An item a second, for conditions that come true by the passing of time.
pub(crate) fn ticks() -> Changes {
    stream::repeat(())
        .then(|()| sleep(Duration::from_secs(1)))
        .boxed()
}

/// The condition did not come true in time.
#[derive(Debug)]
pub(crate) struct TimedOut;

/// The objects of a store, once it has listed them for the first time.
pub(crate) fn listed<K>(store: &Store<K>) -> Option<Vec<Arc<K>>>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    futures_util::FutureExt::now_or_never(store.wait_until_ready())?.ok()?;
    Some(store.state())
}
