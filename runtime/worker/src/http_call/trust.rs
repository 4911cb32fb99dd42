//! Whom a call trusts and which certificate it shows: an HTTP client of its own, made anew when the Secrets change.

use std::sync::{Arc, Mutex, PoisonError};

use autonomy_crds::micro_service::ClientTls;
use autonomy_process::telemetry::error_chain;
use reqwest::{Certificate, Client, Identity};

use super::client_builder;
use crate::secrets::Secrets;
use crate::steps::Failure;

/// An HTTP client with trust and certificate from Secrets.
#[derive(Debug)]
pub(crate) struct TlsClient {
    tls: ClientTls,
    made: Mutex<Option<(Materials, Client)>>,
}

// What a client is made of, PEM.
#[derive(PartialEq, Eq)]
struct Materials {
    authorities: Option<Arc<str>>,
    certificate_and_key: Option<(Arc<str>, Arc<str>)>,
}

impl std::fmt::Debug for Materials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Materials")
    }
}

impl TlsClient {
    pub(crate) fn new(tls: ClientTls) -> Self {
        Self { tls, made: Mutex::new(None) }
    }

    /// The client for the Secrets as they are.
    pub(super) async fn client(&self, secrets: &Secrets) -> Result<Client, Failure> {
        let materials = self.read(secrets).await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = made.as_ref()
            && *of == materials
        {
            return Ok(client.clone());
        }
        // Secrets are put right without changing the service.
        let client = materials.client().map_err(|what| Failure::retryable(format!("the call's TLS: {what}")))?;
        *made = Some((materials, client.clone()));
        Ok(client)
    }

    async fn read(&self, secrets: &Secrets) -> Result<Materials, Failure> {
        let authorities = match &self.tls.ca_from {
            Some(reference) => Some(secrets.text(reference).await?),
            None => None,
        };
        let certificate_and_key = match &self.tls.client_certificate {
            Some(own) => Some((secrets.text(&own.certificate_from).await?, secrets.text(&own.private_key_from).await?)),
            None => None,
        };
        Ok(Materials { authorities, certificate_and_key })
    }
}

impl Materials {
    fn client(&self) -> Result<Client, String> {
        let wrong = |what: &str, error: reqwest::Error| format!("{what}: {}", error_chain(&error));
        let mut builder = client_builder();
        if let Some(authorities) = &self.authorities {
            let certificates = Certificate::from_pem_bundle(authorities.as_bytes()).map_err(|error| wrong("caFrom", error))?;
            if certificates.is_empty() {
                return Err("caFrom has no certificate in PEM".to_owned());
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = &self.certificate_and_key {
            let identity = Identity::from_pem(format!("{certificate}\n{key}\n").as_bytes());
            builder = builder.identity(identity.map_err(|error| wrong("clientCertificate", error))?);
        }
        builder.build().map_err(|error| wrong("the HTTP client", error))
    }
}
