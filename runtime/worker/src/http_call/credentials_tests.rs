//! Calls that show who they are: passwords, access tokens, certificates, signatures.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use autonomy_crds::micro_service::{BasicCredentials, ClientAuthentication, ClientCertificate, ClientTls, OAuth2ClientCredentials};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, post};
use axum::{Json, Router};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tests::{caller, request, secret, serve};
use super::*;

fn write_secret(folder: &Path, name: &str, key: &str, text: &str) {
    std::fs::create_dir_all(folder.join(name)).unwrap();
    std::fs::write(folder.join(name).join(key), text).unwrap();
}

#[tokio::test]
async fn a_user_and_a_password_are_shown_and_each_call_is_signed() {
    let heard = Arc::new(Mutex::new(HeaderMap::new()));
    let hearing = heard.clone();
    let url = serve(Router::new().route("/", post(move |headers: HeaderMap| async move { *hearing.lock().unwrap() = headers }))).await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "bank", "username", "autonomy\n");
    write_secret(folder.path(), "bank", "password", "pass:wörd");
    write_secret(folder.path(), "bank", "signing", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let basic = BasicCredentials { username_from: secret("bank", "username"), password_from: secret("bank", "password") };
    let endpoint =
        Endpoint { credentials: Credentials::Basic(basic), signing_secret: Some(secret("bank", "signing")), ..Endpoint::default() };
    caller(1, Some(folder.path())).call(request(url), &endpoint).await.unwrap();
    let heard = heard.lock().unwrap();
    let expected = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "autonomy:pass:wörd");
    assert_eq!(heard["authorization"], format!("Basic {expected}").as_str());
    assert_eq!(heard["webhook-id"], heard["idempotency-key"], "the id is the same in every attempt");
    let at: i64 = heard["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    assert!((Timestamp::now().as_second() - at).abs() < 60);
    assert!(heard["webhook-signature"].to_str().unwrap().starts_with("v1,"));
}

#[tokio::test]
async fn an_access_token_is_shared_kept_and_asked_for_anew_when_it_is_revoked() {
    // The only token that is good now.
    let (issued, forms) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (issuing, current, hearing) = (issued.clone(), issued.clone(), forms.clone());
    let url = serve(
        Router::new()
            .route(
                "/token",
                post(move |headers: HeaderMap, body: String| async move {
                    hearing.lock().unwrap().push((headers.get("authorization").cloned(), body));
                    let number = issuing.fetch_add(1, Ordering::SeqCst) + 1;
                    Json(json!({"access_token": format!("t{number}"), "token_type": "bearer", "expires_in": 3600}))
                }),
            )
            .route(
                "/",
                any(move |headers: HeaderMap| async move {
                    let good = format!("Bearer t{}", current.load(Ordering::SeqCst));
                    if headers.get("authorization").is_some_and(|given| given == good.as_str()) {
                        StatusCode::OK
                    } else {
                        StatusCode::UNAUTHORIZED
                    }
                }),
            ),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "client", "id", "autonomy");
    write_secret(folder.path(), "client", "secret", "s/ecret");
    let grant = OAuth2ClientCredentials {
        token_url: String::new(),
        client_id_from: secret("client", "id"),
        client_secret_from: secret("client", "secret"),
        scopes: vec!["accruals:write".to_owned(), "members".to_owned()],
        audience: Some("loyalty".to_owned()),
        client_authentication: ClientAuthentication::Basic,
    };
    let endpoint = |token: &str, grant: &OAuth2ClientCredentials| Endpoint {
        credentials: Credentials::OAuth2(Box::new(AccessTokens::new(format!("{url}{token}"), grant.clone()))),
        ..Endpoint::default()
    };
    let caller = caller(32, Some(folder.path()));
    let by_header = endpoint("/token", &grant);
    let outcomes = futures::future::join_all((0..20).map(|_| caller.call(request(url.clone()), &by_header))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(issued.load(Ordering::SeqCst), 1, "one token for all");
    {
        let forms = forms.lock().unwrap();
        let (authorization, form) = &forms[0];
        // RFC 6749 has both form-encoded before they are put together.
        let expected = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "autonomy:s%2Fecret");
        assert_eq!(authorization.as_ref().unwrap(), format!("Basic {expected}").as_str());
        assert_eq!(form, "grant_type=client_credentials&scope=accruals%3Awrite+members&audience=loyalty");
    }
    // Another client gets a token: the first one is not good any more.
    issued.fetch_add(1, Ordering::SeqCst);
    caller.call(request(url.clone()), &by_header).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 3, "asked for anew");

    let in_form = endpoint("/token", &OAuth2ClientCredentials { client_authentication: ClientAuthentication::Body, ..grant.clone() });
    caller.call(request(url.clone()), &in_form).await.unwrap();
    assert!(
        forms
            .lock()
            .unwrap()
            .last()
            .is_some_and(|(authorization, form)| authorization.is_none() && form.ends_with("&client_id=autonomy&client_secret=s%2Fecret"))
    );

    let failure = caller.call(request(url.clone()), &endpoint("/nowhere", &grant)).await.unwrap_err();
    assert!(failure.retryable && failure.message.contains("404") && !failure.message.contains("s/ecret"), "{failure}");
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            // Whoever is refused has nothing more to say.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

// An authority, and what it has signed: a server at 127.0.0.1, and a client.
fn certificates(folder: &Path) {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"));
    std::fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(folder, &format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            folder,
            &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 30 -extfile {name}.ext"),
        );
    }
}

async fn serve_tls(folder: &Path, router: Router) -> String {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut authorities = rustls::RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), ring.clone()).build().unwrap();
    let certificates = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap())
        .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("https://{address}")
}

#[tokio::test]
async fn a_call_over_tls_trusts_the_authorities_named_and_shows_its_certificate() {
    let made = tempfile::tempdir().unwrap();
    certificates(made.path());
    let url = serve_tls(made.path(), Router::new().route("/", any(|| async { "seen" }))).await;
    let folder = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read_to_string(made.path().join(file)).unwrap();
    write_secret(folder.path(), "authority", "ca.crt", &read("ca.pem"));
    let caller = caller(4, Some(folder.path()));
    let call = async |tls: Option<ClientTls>| {
        let endpoint = Endpoint { tls: tls.map(TlsClient::new), ..Endpoint::default() };
        caller.call(request(url.clone()), &endpoint).await
    };
    let certificate = ClientCertificate { certificate_from: secret("own", "tls.crt"), private_key_from: secret("own", "tls.key") };
    let trust = ClientTls { ca_from: Some(secret("authority", "ca.crt")), client_certificate: None };
    let both = ClientTls { client_certificate: Some(certificate), ..trust.clone() };

    let failure = call(None).await.unwrap_err();
    assert!(failure.retryable && failure.message.contains("certificate"), "nobody vouches for it: {failure}");
    assert!(call(Some(trust)).await.unwrap_err().retryable, "the server wants a certificate");
    let failure = call(Some(both.clone())).await.unwrap_err();
    assert!(failure.retryable && failure.message.contains("Secret own"), "a Secret may come: {failure}");
    write_secret(folder.path(), "own", "tls.crt", &read("client.pem"));
    write_secret(folder.path(), "own", "tls.key", &read("client.key"));
    assert_eq!(call(Some(both)).await.unwrap().body, Value::text("seen"));
}
