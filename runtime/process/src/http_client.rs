//! HTTP clients that speak TLS: all that call out are made here, because TLS needs its cryptography chosen once a process.

use std::sync::Once;

/// A client with its usual settings; whom it trusts, the operating system says.
pub fn new() -> reqwest::Client {
    choose_cryptography();
    reqwest::Client::new()
}

/// A client to be, with settings of one's own.
pub fn builder() -> reqwest::ClientBuilder {
    choose_cryptography();
    reqwest::Client::builder()
}

// ring, as for the connections to Kubernetes; where somebody chose before, that stays.
pub(crate) fn choose_cryptography() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
