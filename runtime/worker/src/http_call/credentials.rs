//! Who calls: bearer tokens, passwords, OAuth 2.0 access tokens, and signatures after Standard Webhooks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use autonomy_crds::data_platform::SecretKeyReference;
use autonomy_crds::micro_service::{BasicCredentials, ClientAuthentication, OAuth2ClientCredentials};
use autonomy_process::telemetry::error_chain;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use sha2::Sha256;
use tokio::sync::Mutex;

use super::shown;
use crate::secrets::Secrets;
use crate::steps::Failure;

// An access token of unknown age is asked for anew this often.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);
// A token is not used any more this long before it expires: calls under way must still find it valid.
const SAFETY: Duration = Duration::from_secs(30);
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who calls.
#[derive(Debug, Default)]
pub(crate) enum Credentials {
    #[default]
    None,
    Bearer(SecretKeyReference),
    Basic(BasicCredentials),
    OAuth2(Box<AccessTokens>),
}

impl Credentials {
    /// The Authorization header's value; none where nobody is named.
    pub(super) async fn authorization(&self, client: &Client, secrets: &Secrets) -> Result<Option<HeaderValue>, Failure> {
        let text = match self {
            Self::None => return Ok(None),
            Self::OAuth2(tokens) => return tokens.current(client, secrets).await.map(Some),
            Self::Bearer(token) => format!("Bearer {}", secrets.text(token).await?),
            Self::Basic(basic) => {
                let (user, password) = (secrets.text(&basic.username_from).await?, secrets.text(&basic.password_from).await?);
                format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
            }
        };
        let refused = || Failure::fatal("the credentials have characters that no header may have");
        sensitive(&text).ok_or_else(refused).map(Some)
    }

    /// A web service refused this token: the next call asks for another one. True where that is worth a try.
    pub(super) async fn refused(&self, token: Option<&HeaderValue>) -> bool {
        match (self, token) {
            (Self::OAuth2(tokens), Some(token)) => tokens.forget(token).await,
            _ => false,
        }
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Access tokens by the client credentials grant, one at a time for all calls of a step.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    token_url: String,
    grant: OAuth2ClientCredentials,
    held: Mutex<Option<AccessToken>>,
}

#[derive(Debug)]
struct AccessToken {
    authorization: HeaderValue,
    until: Instant,
}

// RFC 6749, 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

impl AccessTokens {
    /// From this token endpoint.
    pub(crate) fn new(token_url: String, grant: OAuth2ClientCredentials) -> Self {
        Self { token_url, grant, held: Mutex::new(None) }
    }

    // Whoever comes while a token is asked for waits for that one.
    async fn current(&self, client: &Client, secrets: &Secrets) -> Result<HeaderValue, Failure> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.authorization.clone());
        }
        let token = self.ask(client, secrets).await?;
        let authorization = token.authorization.clone();
        *held = Some(token);
        Ok(authorization)
    }

    async fn forget(&self, refused: &HeaderValue) -> bool {
        let mut held = self.held.lock().await;
        // Another call may have got a new one already.
        if held.as_ref().is_some_and(|token| token.authorization == *refused) {
            *held = None;
        }
        true
    }

    // Whatever goes wrong here may pass: Secrets and the authorization server's clients are put right without changing the service.
    async fn ask(&self, client: &Client, secrets: &Secrets) -> Result<AccessToken, Failure> {
        let place = self.token_url.parse().map_or_else(|_| self.token_url.clone(), |url| shown(&url));
        let asked_at = Instant::now();
        let request = self.request(client, secrets).await?;
        let failed =
            |error: reqwest::Error| Failure::retryable(format!("an access token from {place}: {}", error_chain(&error.without_url())));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let retry_after = super::retry_after(response.headers());
        if !status.is_success() {
            let message = format!("an access token from {place}: it answered {status}; check the client's Secrets, scopes and audience");
            return Err(Failure { retryable: true, retry_after, message });
        }
        let answer: TokenAnswer = response.json().await.map_err(failed)?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(Failure::retryable(format!("{place} gave an access token of the type {:?}, not Bearer", answer.token_type)));
        }
        let life = answer.expires_in.map_or(UNKNOWN_LIFE, Duration::from_secs);
        let authorization = sensitive(&format!("Bearer {}", answer.access_token))
            .ok_or_else(|| Failure::retryable(format!("{place} gave an access token with characters that no header may have")))?;
        // Of a very short life at least half is used.
        Ok(AccessToken { authorization, until: asked_at + life.saturating_sub(SAFETY).max(life / 2) })
    }

    async fn request(&self, client: &Client, secrets: &Secrets) -> Result<RequestBuilder, Failure> {
        let (id, secret) = (secrets.text(&self.grant.client_id_from).await?, secrets.text(&self.grant.client_secret_from).await?);
        let scope = self.grant.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        form.extend(self.grant.audience.as_deref().map(|audience| ("audience", audience)));
        let request = client.post(&self.token_url).timeout(TOKEN_TIMEOUT);
        Ok(match self.grant.client_authentication {
            // RFC 6749, 2.3.1: both are form-encoded first.
            ClientAuthentication::Basic => request.form(&form).basic_auth(form_encoded(&id), Some(form_encoded(&secret))),
            ClientAuthentication::Body => {
                form.extend([("client_id", &*id), ("client_secret", &*secret)]);
                request.form(&form)
            }
        })
    }
}

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The headers that sign a call after Standard Webhooks: its id, the present moment, and a signature for each secret in the text.
pub(super) fn signature(id: &str, secrets: &Arc<str>, body: &[u8]) -> Result<HeaderMap, Failure> {
    signature_at(id, Timestamp::now().as_second(), secrets, body)
}

fn signature_at(id: &str, at: i64, secrets: &str, body: &[u8]) -> Result<HeaderMap, Failure> {
    let signatures = secrets.split_whitespace().map(|secret| {
        let key = match secret.strip_prefix("whsec_") {
            Some(encoded) => BASE64.decode(encoded).map_err(|_| Failure::retryable("the signing secret is no Base64 after its whsec_"))?,
            None => secret.as_bytes().to_vec(),
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Failure::fatal("the signing secret can't be a key"))?;
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        Ok(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
    });
    let signatures = signatures.collect::<Result<Vec<String>, Failure>>()?;
    if signatures.is_empty() {
        return Err(Failure::retryable("the signing secret is empty"));
    }
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Failure::fatal(format!("{text:?} can't be a webhook-id")));
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("webhook-id"), value(id)?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(at));
    headers.insert(HeaderName::from_static("webhook-signature"), value(&signatures.join(" "))?);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_own_example_is_signed_as_it_says() {
        // From Standard Webhooks' reference tests.
        let body = br#"{"test": 2432232314}"#;
        let headers =
            signature_at("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", body).expect("a signature");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn while_a_secret_is_replaced_there_is_a_signature_of_each() {
        let of = |secrets: &str| {
            signature_at("1", 2, secrets, b"{}").expect("a signature")["webhook-signature"].to_str().expect("text").to_owned()
        };
        assert_eq!(of("old\nnew"), format!("{} {}", of("old"), of("new")));
        assert!(signature_at("1", 2, "  ", b"{}").is_err());
        assert!(signature_at("1", 2, "whsec_?", b"{}").is_err_and(|failure| failure.retryable));
    }
}
