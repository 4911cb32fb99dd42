//! An example of a handler: a small HTTP server that gets CloudEvents and answers with what is to be written.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves until the process ends: each event's object gets `attribute` set to `value`.
///
/// # Errors
/// When the address can't be had.
pub async fn serve(listen: SocketAddr, attribute: String, value: String) -> std::io::Result<()> {
    let router = Router::new().route("/", post(answer)).with_state(Arc::new((attribute, value)));
    axum::serve(TcpListener::bind(listen).await?, router).await
}

// The type is `dev.autonomy.{model}.{Entity}.{operation}`.
async fn answer(State(change): State<Arc<(String, String)>>, headers: HeaderMap, Json(object): Json<Value>) -> (StatusCode, Json<Value>) {
    let kind = headers.get("ce-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let mut tokens = kind.trim_start_matches("dev.autonomy.").split('.');
    let (Some(model), Some(entity)) = (tokens.next(), tokens.next()) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"detail": "this is no event of Autonomy: ce-type is missing"})));
    };
    let patch = json!({"op": "patch", "model": model, "entity": entity, "id": object["id"], "object": {&change.0: change.1}});
    (StatusCode::OK, Json(json!({"operations": [patch]})))
}
