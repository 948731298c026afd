//! Where the Lease is kept.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kindnet_api::names;
use kube::api::PostParams;
use kube::{Api, Client};

use super::decision::Record;
use crate::connect::explain;

/// Why a Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote it since it was read.
    #[error("the Lease was changed by another")]
    Conflict,
    /// No answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// The API server refused, or could not be reached.
    #[error("{}", explain(.0))]
    Api(#[from] kube::Error),
}

/// A record that is only replaced by whoever has read its current version.
pub trait Store: Send {
    /// The record and its version; nothing when there is none yet.
    fn get(&self) -> impl Future<Output = Result<Option<(Record, String)>, StoreError>> + Send;

    /// Writes the record with the current time as the time of renewal; `version` as read, `None` to make it.
    fn put(
        &self,
        record: &Record,
        version: Option<String>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The Lease in the API server.
pub struct ApiStore {
    api: Api<Lease>,
}

impl ApiStore {
    /// The controller's Lease.
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::namespaced(client, names::NAMESPACE),
        }
    }
}

impl Store for ApiStore {
    async fn get(&self) -> Result<Option<(Record, String)>, StoreError> {
        let Some(lease) = self.api.get_opt(names::CONTROLLER_NAME).await? else {
            return Ok(None);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let record = Record {
            holder: spec.holder_identity,
            duration: Duration::from_secs(seconds),
            renewed: spec.renew_time.map(|MicroTime(time)| time.to_string()),
            acquired: spec.acquire_time.map(|MicroTime(time)| time),
            transitions: spec.lease_transitions.unwrap_or(0),
        };
        Ok(Some((record, version)))
    }

    async fn put(&self, record: &Record, version: Option<String>) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let mut lease = Lease::default();
        lease.metadata.name = Some(names::CONTROLLER_NAME.into());
        lease.metadata.namespace = Some(names::NAMESPACE.into());
        lease.metadata.resource_version.clone_from(&version);
        lease.spec = Some(LeaseSpec {
            holder_identity: record.holder.clone(),
            lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(record.acquired.unwrap_or(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(record.transitions),
            ..LeaseSpec::default()
        });
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let written = match version {
            Some(_) => {
                self.api
                    .replace(names::CONTROLLER_NAME, &params, &lease)
                    .await
            }
            None => self.api.create(&params, &lease).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Err(StoreError::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}
