use std::sync::{Arc, Mutex};

use super::*;

/// One Lease in memory, shared by all candidates of a test.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    record: Option<Record>,
    version: u64,
    down: bool,
}

impl Memory {
    fn down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    fn record(&self) -> Record {
        self.0.lock().unwrap().record.clone().unwrap()
    }

    fn candidate(&self, name: &str) -> Elector<Self> {
        Elector::new(self.clone(), name.into(), || {})
    }
}

impl Store for Memory {
    async fn get(&self) -> Result<Option<(Record, String)>, StoreError> {
        let state = self.0.lock().unwrap();
        if state.down {
            return Err(StoreError::Timeout);
        }
        Ok(state.record.clone().map(|r| (r, state.version.to_string())))
    }

    async fn put(&self, record: &Record, version: Option<String>) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        if state.down {
            return Err(StoreError::Timeout);
        }
        if version != state.record.as_ref().map(|_| state.version.to_string()) {
            return Err(StoreError::Conflict);
        }
        state.version += 1;
        state.record = Some(Record {
            renewed: Some(state.version.to_string()),
            ..record.clone()
        });
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_candidate_leads_once_the_first_is_gone_for_the_duration() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    lease.candidate("a").acquire(&stop).await.unwrap();

    let began = Instant::now();
    lease.candidate("b").acquire(&stop).await.unwrap();
    let waited = began.elapsed();
    assert!(waited >= LEASE_DURATION, "{waited:?}");
    assert!(waited <= LEASE_DURATION + 2 * RETRY_PERIOD, "{waited:?}");
    let record = lease.record();
    assert_eq!(record.holder.as_deref(), Some("b"));
    assert_eq!(record.transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_lease_is_never_taken() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    let mut a = lease.candidate("a");
    a.acquire(&stop).await.unwrap();
    let (mut b, stop_b) = (lease.candidate("b"), CancellationToken::new());
    tokio::select! {
        error = a.hold(&stop) => panic!("{error}"),
        _ = b.acquire(&stop_b) => panic!("b leads beside a"),
        () = sleep(Duration::from_secs(600)) => {}
    }
    assert_eq!(lease.record().transitions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    let mut a = lease.candidate("a");
    a.acquire(&stop).await.unwrap();
    a.release().await;
    let began = Instant::now();
    lease.candidate("b").acquire(&stop).await.unwrap();
    assert!(began.elapsed() < RETRY_PERIOD);
    // A late release by the old holder must not touch the new one's lease.
    a.release().await;
    assert_eq!(lease.record().holder.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_api_server_stops_before_another_may_begin() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    let mut a = lease.candidate("a");
    a.acquire(&stop).await.unwrap();
    lease.down(true);
    let began = Instant::now();
    assert!(matches!(
        a.hold(&stop).await,
        ElectionError::Unreachable(..)
    ));
    assert!(began.elapsed() >= RENEW_DEADLINE);
    assert!(began.elapsed() < LEASE_DURATION);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_survived() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    let mut a = lease.candidate("a");
    a.acquire(&stop).await.unwrap();
    tokio::select! {
        error = a.hold(&stop) => panic!("{error}"),
        () = async {
            for _ in 0..5 {
                lease.down(true);
                sleep(Duration::from_secs(7)).await;
                lease.down(false);
                sleep(Duration::from_secs(7)).await;
            }
        } => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_notices_that_another_took_over() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    let mut a = lease.candidate("a");
    a.acquire(&stop).await.unwrap();
    lease.candidate("b").acquire(&stop).await.unwrap();
    assert!(matches!(a.hold(&stop).await, ElectionError::Taken(by) if by == "b"));
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_the_next_look() {
    let lease = Memory::default();
    let stop = CancellationToken::new();
    lease.candidate("a").acquire(&stop).await.unwrap();
    let began = Instant::now();
    let mut b = lease.candidate("b");
    let (result, ()) = tokio::join!(b.acquire(&stop), async {
        sleep(Duration::from_millis(100)).await;
        stop.cancel();
    });
    assert!(matches!(result, Err(ElectionError::Stopped)));
    assert!(began.elapsed() < Duration::from_millis(200));
}
