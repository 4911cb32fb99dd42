//! Starting local mode: servers, database, roles; and telling where everything is.

use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use autonomy_operator::prepare::{self, PrepareSettings};
use autonomy_operator::sql::{api_role, relay_role};
use autonomy_process::options::nats_connect_options;
use autonomy_servers::{Nats, NatsOptions, Postgres, PostgresOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};

use super::data_folder::{DataFolder, LocalFile};
use super::program::{Program, StartError, Started, find_runtime};
use super::session::{Platform, Session};
use super::supervisor::Supervisor;
use super::{LocalError, Options};
use crate::console::Console;

const DATABASE: &str = "autonomy";
const NATS_SYNC_INTERVAL: Duration = Duration::from_millis(500);
// The sync interval and some reserve.
const NATS_SYNC_SURE: Duration = Duration::from_millis(1500);
const API_CONNECTIONS: u32 = 40;

/// Servers that run, and how to reach them.
pub struct Servers {
    pub platform: Platform,
    pub nats: async_nats::Client,
    postgres_port: u16,
    nats_port: u16,
    api_database: String,
    relay_database: String,
}

/// Starts PostgreSQL and nats-server, on the ports of the last time where they are free, and prepares the database.
pub async fn servers(
    options: &Options,
    folder: Arc<DataFolder>,
    supervisor: &Supervisor,
    console: &Console,
    namespace: &str,
) -> Result<Servers, LocalError> {
    let runtime = find_runtime().map_err(LocalError::Runtime)?;
    let api = api_address(options.listen)?;
    console.say(format!("starting PostgreSQL and nats-server in {}", folder.path().display()));
    let before = ports_before(&folder);
    let postgres_options = PostgresOptions { port: before.0, ..PostgresOptions::new(folder.join("postgresql")) };
    let nats_options = NatsOptions { port: before.1, sync_interval: NATS_SYNC_INTERVAL, ..NatsOptions::new(folder.join("nats")) };
    let (postgres, nats) = tokio::join!(Postgres::start(postgres_options.clone()), Nats::start(nats_options.clone()));
    let (postgres, nats) = (postgres.map_err(StartError::from)?, nats.map_err(StartError::from)?);

    let (postgres_port, nats_port) = (postgres.port(), nats.port());
    let (admin_url, nats_url) = (postgres.url(DATABASE), nats.url());
    let server_url = postgres.url("postgres");
    let again = PostgresOptions { port: Some(postgres_port), ..postgres_options };
    supervisor.add("postgresql", Program::Postgres(again), Some(Started::postgres(postgres)));
    let again = NatsOptions { port: Some(nats_port), ..nats_options };
    supervisor.add("nats-server", Program::Nats(again), Some(Started::nats(nats)));

    make_database(&server_url).await?;
    let admin = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(PgConnectOptions::from_str(&admin_url)?.application_name("autonomy-local"))
        .await?;
    let api_password = folder.password("api")?;
    let relay_password = folder.password("relay")?;
    let settings = PrepareSettings { api_password: api_password.clone(), relay_password: relay_password.clone() };
    prepare::prepare(&admin, &settings).await?;

    let client = nats_connect_options(&nats_url)?
        .name("autonomy-local")
        .connect(&nats_url)
        .await
        .map_err(autonomy_process::options::NatsConnectError::from)?;
    let database = |role: String, password: &str| format!("postgres://{role}:{password}@127.0.0.1:{postgres_port}/{DATABASE}");
    let mut jetstream = jetstream::new(client.clone());
    jetstream.set_timeout(Duration::from_secs(5));
    let platform = Platform { jetstream, folder, admin, runtime, api, nats_url: nats_url.clone(), nats_sync: NATS_SYNC_SURE };
    supervisor.set_addresses(LocalFile {
        namespace: namespace.to_owned(),
        api: platform.api_url(),
        nats: nats_url,
        postgresql: admin_url,
        files_dir: platform.files_dir(),
        nats_sync_milliseconds: u64::try_from(NATS_SYNC_SURE.as_millis()).unwrap_or(u64::MAX),
        processes: Vec::new(),
    });
    Ok(Servers {
        api_database: database(api_role(DATABASE), &api_password),
        relay_database: database(relay_role(DATABASE), &relay_password),
        platform,
        nats: client,
        postgres_port,
        nats_port,
    })
}

// The address the API is served at: free now, and fixed for its restarts.
fn api_address(listen: SocketAddr) -> Result<SocketAddr, LocalError> {
    TcpListener::bind(listen).and_then(|listener| listener.local_addr()).map_err(|source| LocalError::Listen { address: listen, source })
}

// The ports of the last time, where nobody has taken them since.
fn ports_before(folder: &DataFolder) -> (Option<u16>, Option<u16>) {
    let ports = std::fs::read_to_string(folder.join("ports")).unwrap_or_default();
    let mut ports = ports.split_whitespace().map(|port| {
        let port = port.parse::<u16>().ok()?;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    (ports.next().flatten(), ports.next().flatten())
}

async fn make_database(server_url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(server_url).await?;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(DATABASE).fetch_one(&mut connection).await?;
    if !there {
        sqlx::raw_sql("CREATE DATABASE autonomy").execute(&mut connection).await?;
    }
    connection.close().await
}

/// Starts API and relay.
pub fn roles(servers: &Servers, supervisor: &Supervisor) {
    let platform = &servers.platform;
    // Kept for the next start; without it there are just other ports.
    let _ = std::fs::write(platform.folder.join("ports"), format!("{} {}\n", servers.postgres_port, servers.nats_port));
    let mut api = platform.role(
        "api",
        vec!["api".into()],
        vec![
            ("AUTONOMY_DATABASE_URL", servers.api_database.clone().into()),
            ("AUTONOMY_DATABASE_CONNECTIONS", API_CONNECTIONS.to_string().into()),
            ("AUTONOMY_API_LISTEN", platform.api.to_string().into()),
        ],
    );
    api.operations = Some(platform.api);
    supervisor.add("api", Program::Role(api), None);
    let relay = platform.role("relay", vec!["relay".into()], vec![("AUTONOMY_DATABASE_URL", servers.relay_database.clone().into())]);
    supervisor.add("relay", Program::Role(relay), None);
}

/// Tells every address.
pub fn tell_addresses(servers: &Servers, session: &Session, console: &Console) {
    let platform = &servers.platform;
    let running = session.subscribe().borrow().clone();
    let api = platform.api_url();
    let mut text = String::from("\nautonomy local runs\n");
    for model in running.models.values() {
        text.push_str(&format!("  API of {:<25} {api}/api/{}/{{", model.name, model.name));
        let paths: Vec<&str> = model.entities.iter().map(|entity| entity.path.as_str()).collect();
        text.push_str(&format!("{}}}\n", paths.join(",")));
        text.push_str(&format!("  {:<32} {api}/api/{}/openapi.json\n", "", model.name));
    }
    let path = platform.folder.path().display();
    text.push_str(&format!("  {:<32} nats://127.0.0.1:{} (user autonomy, password in {path}/nats/password)\n", "NATS", servers.nats_port));
    text.push_str(&format!(
        "  {:<32} PGPASSWORD=$(cat {path}/postgresql/password) psql -h 127.0.0.1 -p {} -U postgres {DATABASE}\n",
        "PostgreSQL", servers.postgres_port
    ));
    if let Ok(place) = std::fs::read_link(platform.folder.join("postgresql")) {
        let place = place.display();
        text.push_str(&format!("  {:<32} {place} (its user \"postgres\" can't reach {path})\n", "  its data"));
    }
    for (name, service) in &running.services {
        if let Some(files) = &service.spec.trigger.files {
            let place = match (&files.directory, &files.s3) {
                (Some(directory), _) => platform.files_dir().join(directory).display().to_string(),
                (None, Some(s3)) => format!("s3://{}/{}", s3.bucket, s3.prefix),
                (None, None) => String::new(),
            };
            text.push_str(&format!("  {:<32} {}/{}\n", format!("files for {name}"), place.trim_end_matches('/'), files.pattern));
        }
    }
    text.push_str(&format!("  {:<32} {path}/logs\n", "logs"));
    text.push_str(&format!("  {:<32} {path}/local.json (with passwords)\n", "for tools"));
    text.push_str("Ctrl-C stops everything; edits of the YAML are applied as they are saved.");
    console.say(text);
}

/// The database's pool for one-off commands against a running local mode.
pub(crate) async fn admin_pool(local: &LocalFile) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new().max_connections(1).connect(&local.postgresql).await
}
