//! Observe, apply and cleanup of the chain.

use std::collections::BTreeMap;

use kindnet_api::names::MASQUERADE_CHAIN;
use kindnet_api::node::Family;
use kindnet_core::masquerade::MasqueradePlan;

use super::command::Tool;
use super::rules::{Present, Rules, drift, transaction};
use super::{Drift, Flavour, Masquerade, Repairs};
use crate::{ErrorKind, Result};

/// Masquerading with the iptables of one flavour.
#[derive(Debug)]
pub struct Iptables {
    flavour: Flavour,
    /// False once a kernel or a tool has refused the option.
    random_fully: bool,
    /// How this node's tools print what was written, where that is not how it was written.
    printed: BTreeMap<Family, (Rules, Present)>,
}

impl Iptables {
    /// Uses one flavour.
    #[must_use]
    pub fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            random_fully: true,
            printed: BTreeMap::new(),
        }
    }

    /// The flavour in use.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Removes what an earlier run left in the other flavour, after this node changed from one to
    /// the other.
    ///
    /// # Errors
    /// Something is left, after everything was tried.
    pub fn cleanup_other_flavours(&mut self) -> Result<()> {
        let others = [Flavour::Nft, Flavour::Legacy];
        // Where flavours are not told apart there is only one.
        let others = others
            .into_iter()
            .filter(|other| self.flavour != Flavour::Default && *other != self.flavour);
        cleanup(others)
    }

    fn rules(&self, plan: &MasqueradePlan, family: Family) -> Option<Rules> {
        let plan = plan.families.get(&family)?;
        Some(Rules::new(family, plan, self.random_fully))
    }

    fn check(&self, desired: Option<&Rules>, present: &Present, family: Family) -> Option<Drift> {
        let Some(desired) = desired else {
            return (!present.is_empty()).then_some(Drift::Unwanted);
        };
        let found = drift(desired, present)?;
        let known = self
            .printed
            .get(&family)
            .is_some_and(|(rules, printed)| rules == desired && printed == present);
        (!known).then_some(found)
    }

    fn verify_family(&self, plan: &MasqueradePlan, family: Family) -> Result<Option<Drift>> {
        let desired = self.rules(plan, family);
        match observe(Tool::new(self.flavour, family)) {
            Ok(present) => Ok(self.check(desired.as_ref(), &present, family)),
            Err(_) if desired.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn apply_family(&mut self, plan: &MasqueradePlan, family: Family) -> Result<Option<Drift>> {
        let tool = Tool::new(self.flavour, family);
        let Some(mut desired) = self.rules(plan, family) else {
            // Nothing is wanted. Where the family cannot even be looked at, nothing is there.
            return match observe(tool) {
                Ok(present) if !present.is_empty() => {
                    remove(tool, &present)?;
                    Ok(Some(Drift::Unwanted))
                }
                _ => Ok(None),
            };
        };
        let present = observe(tool)?;
        let Some(found) = self.check(Some(&desired), &present, family) else {
            return Ok(None);
        };
        if let Err(error) = tool.restore(&transaction(&desired, &present)) {
            if !self.random_fully || error.kind() == ErrorKind::Permission {
                return Err(error);
            }
            let plain = self.without_random_fully(plan, family);
            if tool.restore(&transaction(&plain, &present)).is_err() {
                return Err(error);
            }
            tracing::warn!(%family, "this kernel or iptables has no --random-fully; masquerading without");
            self.random_fully = false;
            desired = plain;
        }
        let after = observe(tool)?;
        if drift(&desired, &after).is_some() {
            self.printed.insert(family, (desired, after));
        } else {
            self.printed.remove(&family);
        }
        Ok(Some(found))
    }

    fn without_random_fully(&self, plan: &MasqueradePlan, family: Family) -> Rules {
        Rules::new(family, &plan.families[&family], false)
    }
}

impl Masquerade for Iptables {
    fn verify(&mut self, plan: &MasqueradePlan) -> Result<Repairs> {
        each_family(|family| self.verify_family(plan, family))
    }

    fn apply(&mut self, plan: &MasqueradePlan) -> Result<Repairs> {
        each_family(|family| self.apply_family(plan, family))
    }

    fn cleanup(&mut self) -> Result<()> {
        self.printed.clear();
        cleanup([Flavour::Nft, Flavour::Legacy, Flavour::Default])
    }
}

fn cleanup(flavours: impl IntoIterator<Item = Flavour>) -> Result<()> {
    let mut first = None;
    for flavour in flavours {
        for family in Family::ALL {
            let tool = Tool::new(flavour, family);
            if !flavour.in_use(family) {
                continue;
            }
            // A tool that is missing, or whose part of the kernel is, has left nothing behind.
            let Ok(present) = observe(tool) else { continue };
            if !present.is_empty()
                && let Err(error) = remove(tool, &present)
            {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Runs both families, whatever becomes of the first, and reports the first error.
fn each_family(mut run: impl FnMut(Family) -> Result<Option<Drift>>) -> Result<Repairs> {
    let mut repairs = Vec::new();
    let mut failed = None;
    for family in Family::ALL {
        match run(family) {
            Ok(found) => repairs.extend(found.map(|drift| (family, drift))),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(repairs), Err)
}

fn observe(tool: Tool) -> Result<Present> {
    let postrouting = tool.list("POSTROUTING")?.unwrap_or_default();
    let chain = tool.list(MASQUERADE_CHAIN)?;
    Ok(Present::new(&postrouting, chain.as_deref()))
}

/// Jumps first: a chain that is still led to cannot be deleted.
fn remove(tool: Tool, present: &Present) -> Result<()> {
    for jump in present.jumps() {
        tool.delete_jump(jump)?;
    }
    if present.chain.is_some() {
        tool.delete_chain(MASQUERADE_CHAIN)?;
    }
    tracing::info!(family = %tool.family(), "masquerading removed");
    Ok(())
}
