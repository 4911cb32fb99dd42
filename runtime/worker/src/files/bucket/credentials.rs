//! Who asks: an access key out of Secrets, read when it is used, so that it can be replaced while the worker runs.

use std::pin::Pin;
use std::sync::Arc;

use autonomy_crds::data_platform::SecretKeyReference;
use autonomy_crds::micro_service::S3Location;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};

use crate::secrets::{SecretError, Secrets};

/// An access key in Secrets.
#[derive(Debug)]
pub struct SecretCredentials {
    secrets: Secrets,
    key_id: SecretKeyReference,
    secret_key: SecretKeyReference,
}

impl SecretCredentials {
    /// Those that a location names; none where the environment tells.
    pub fn of(location: &S3Location, secrets: &Secrets) -> Option<AwsCredentialProvider> {
        let (key_id, secret_key) = (location.access_key_id_from.clone()?, location.secret_access_key_from.clone()?);
        Some(Arc::new(Self { secrets: secrets.clone(), key_id, secret_key }))
    }

    async fn read(&self) -> Result<Arc<AwsCredential>, SecretError> {
        let (key_id, secret_key) = (self.secrets.text(&self.key_id).await?, self.secrets.text(&self.secret_key).await?);
        Ok(Arc::new(AwsCredential { key_id: key_id.to_string(), secret_key: secret_key.to_string(), token: None }))
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<Arc<T>>> + Send + 'a>>;

impl CredentialProvider for SecretCredentials {
    type Credential = AwsCredential;

    fn get_credential<'s, 'a>(&'s self) -> Answer<'a, AwsCredential>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async { self.read().await.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) }) })
    }
}
