//! The measurements.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kindnet_cni::config::HostPorts;
use kindnet_cni::ipam::{Range, RangeSet, Record, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::Pod;
use crate::plugin::{Network, STATE, Side};

const V4: &str = "10.244.0.0/16";
const V6: &str = "fd00:10:244::/64";

/// Address families of the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
    /// Both
    Dual,
}

impl Family {
    fn subnets(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 => &[V4],
            Self::Ipv6 => &[V6],
            Self::Dual => &[V4, V6],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Dual => "dual",
        }
    }
}

/// A measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// Address families
    pub family: Family,
    /// Whether every pod has a host port
    pub host_port: bool,
    /// Pods that come and go at once
    pub at_once: usize,
    /// Pods
    pub pods: usize,
    /// Addresses in use before the first one
    pub allocated: usize,
    /// Whether the time for all of them is of interest
    pub churn: bool,
    /// Only kindnet-cni: the chain would take minutes
    pub ours_only: bool,
    /// Longest time for the ADDs of the chain, seconds
    pub patience: u64,
}

impl Cell {
    /// What it is called in tables.
    pub fn name(&self) -> String {
        let mut name = self.family.name().to_owned();
        if self.host_port {
            name.push_str(", hostPort");
        }
        if self.at_once > 1 {
            name.push_str(&format!(", {} at once", self.at_once));
        }
        if self.allocated > 0 {
            name.push_str(&format!(", {} allocated", self.allocated));
        }
        if self.churn {
            name = format!("{} pods: {name}", self.pods);
        }
        name
    }
}

/// Every measurement.
pub fn all(pods: usize, patience: u64) -> Vec<Cell> {
    let base = Cell {
        family: Family::Ipv4,
        host_port: false,
        at_once: 1,
        pods,
        allocated: 0,
        churn: false,
        ours_only: false,
        patience,
    };
    let mut cells = Vec::new();
    for at_once in [1, 16] {
        for host_port in [false, true] {
            for family in [Family::Ipv4, Family::Ipv6, Family::Dual] {
                cells.push(Cell {
                    family,
                    host_port,
                    at_once,
                    ..base.clone()
                });
            }
        }
    }
    for allocated in [10, 1_000, 10_000] {
        cells.push(Cell {
            allocated,
            ..base.clone()
        });
    }
    for (family, at_once, ours_only) in [
        (Family::Ipv4, 1, false),
        (Family::Ipv4, 16, false),
        (Family::Dual, 1, true),
        (Family::Dual, 16, false),
    ] {
        cells.push(Cell {
            family,
            at_once,
            ours_only,
            pods: 300,
            churn: true,
            // All of them, however long it takes.
            patience: 3600,
            ..base.clone()
        });
    }
    cells
}

/// What was measured, milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Samples {
    /// Each ADD
    pub add: Vec<f64>,
    /// Each DEL
    pub del: Vec<f64>,
    /// All ADDs
    pub add_total: f64,
    /// All DELs
    pub del_total: f64,
}

/// Measures, on a host made by [`crate::host::isolate`].
pub fn measure(cell: &Cell, side: &Side) -> Result<Samples> {
    let network = Network::new(side, cell.family.subnets());
    if cell.allocated > 0 {
        fill(side, cell.allocated)?;
    }
    let pods: Vec<Pod> = (1..=cell.pods).map(Pod::new).collect::<Result<_>>()?;
    let warm = Pod::new(0)?;
    let ports: Vec<Vec<Value>> = (0..=cell.pods)
        .map(|n| {
            if cell.host_port {
                vec![json!({"hostPort": 10_000 + n, "containerPort": 80, "protocol": "tcp"})]
            } else {
                Vec::new()
            }
        })
        .collect();
    // The first pod loads programs and makes tables; it is not counted.
    let result = network.add(&warm, &ports[cell.pods])?;
    network.del(&warm, &ports[cell.pods], &result)?;

    let deadline = match side {
        Side::Ours(_) => Duration::from_secs(3600),
        Side::Chain(_) => Duration::from_secs(cell.patience),
    };
    let began = Instant::now();
    let added = at_once(cell.at_once, pods.len(), |n| {
        if n >= 16 && began.elapsed() > deadline {
            return Ok(None);
        }
        let started = Instant::now();
        let result = network.add(&pods[n], &ports[n])?;
        Ok(Some((n, millis(started), result)))
    })?;
    let add_total = millis(began);
    let began = Instant::now();
    let deleted = at_once(cell.at_once, added.len(), |n| {
        let (pod, _, result) = &added[n];
        let started = Instant::now();
        network.del(&pods[*pod], &ports[*pod], result)?;
        Ok(Some(millis(started)))
    })?;
    Ok(Samples {
        add: added.into_iter().map(|(_, took, _)| took).collect(),
        del: deleted,
        add_total,
        del_total: millis(began),
    })
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Works through `0..count` on some threads.
fn at_once<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> Result<Option<T>> + Sync,
) -> Result<Vec<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return Ok(());
                        }
                        let value = work(n)?;
                        done.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .extend(value);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread died"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Takes the first addresses of the IPv4 subnet, without links.
fn fill(side: &Side, count: usize) -> Result<()> {
    let range = Range::new(V4.parse()?, None, None, None)?;
    match side {
        Side::Ours(_) => {
            let store = Store::new(format!("{STATE}/kindnet"));
            let sets = [RangeSet::new(vec![range])?];
            for n in 0..count {
                let record = Record {
                    container_id: format!("other-{n}"),
                    ifname: "eth0".to_owned(),
                    netns: String::new(),
                    pod: None,
                    link: String::new(),
                    addresses: Vec::new(),
                    ports: Vec::new(),
                    port_targets: Vec::new(),
                    host_ports: HostPorts::Auto,
                };
                store.allocate(&sets, &[], record, |_| Ok(false))?;
            }
        }
        // host-local: a file per address with the container in it, and the last address handed out.
        Side::Chain(_) => {
            let folder = format!("{STATE}/kindnet");
            fs::create_dir_all(&folder)?;
            let count = u32::try_from(count).context("too many")?;
            for n in 1..=count {
                let path = format!("{folder}/{}", range.address(n));
                fs::write(path, format!("other-{n}\r\neth0"))?;
            }
            let last = range.address(count).to_string();
            fs::write(format!("{folder}/last_reserved_ip.0"), last)?;
        }
    }
    Ok(())
}
