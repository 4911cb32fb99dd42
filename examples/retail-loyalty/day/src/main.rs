//! The command `retail-loyalty`: a trading day of the retail loyalty case, in parts or as a whole story.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use retail_loyalty::count::{Counted, Outside};
use retail_loyalty::demo;
use retail_loyalty::expected::Expected;
use retail_loyalty::facts::Size;
use retail_loyalty::platform::{Platform, Where};
use retail_loyalty::stand_ins::{Addresses, StandIns};
use retail_loyalty::{handler, seed, written};

/// A trading day of the retail loyalty case.
#[derive(Parser)]
#[command(name = "retail-loyalty", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs the whole story: the platform, the systems outside, a trading day, and the count at its end.
    Demo(demo::Options),
    /// Writes a day: reference data, store files, and what must come out.
    Generate {
        #[command(flatten)]
        size: Size,
        /// Where to.
        #[arg(long)]
        day: PathBuf,
    },
    /// Plays the loyalty provider, the accounting service, the general ledger and the ticket desk for a generated day.
    StandIns {
        /// The generated day.
        #[arg(long)]
        day: PathBuf,
        /// From which number their troubles follow.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        addresses: Addresses,
    },
    /// Posts a day's reference data to a running platform and sends the stores' files.
    Seed {
        /// The generated day.
        #[arg(long)]
        day: PathBuf,
        #[command(flatten)]
        platform: Where,
        /// Leave the stores' files out.
        #[arg(long)]
        reference_only: bool,
    },
    /// Runs a generated day through a running platform: reference data, the stores' files, and the count at the end; exit status 1 on any difference.
    TradingDay {
        /// The generated day.
        #[arg(long)]
        day: PathBuf,
        #[command(flatten)]
        platform: Where,
        #[command(flatten)]
        outside: Outside,
    },
    /// A handler as `MicroService.handler.http` runs it, for trying it out: sets an attribute of each event's object.
    Handler {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:8000")]
        listen: std::net::SocketAddr,
        /// The attribute that is set.
        #[arg(long)]
        attribute: String,
        /// What it is set to.
        #[arg(long)]
        value: String,
    },
    /// Counts what the platform and the systems outside have, beside what must be there; exit status 1 on any difference.
    Count {
        /// The generated day.
        #[arg(long)]
        day: PathBuf,
        #[command(flatten)]
        platform: Where,
        #[command(flatten)]
        outside: Outside,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().action).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("retail-loyalty: {}", chain(&*error));
            ExitCode::from(2)
        }
    }
}

async fn run(action: Action) -> Result<bool, Box<dyn std::error::Error>> {
    match action {
        Action::Demo(options) => return Ok(demo::run(options).await?),
        Action::Generate { size, day } => {
            let expected = written::write_day(&size, &day)?;
            println!("{}", serde_json::to_string_pretty(&expected)?);
        }
        Action::StandIns { day, seed, addresses } => {
            let systems = StandIns::start(&day, seed, addresses).await?;
            println!("LOYALTY_PROVIDER_URL={}", systems.loyalty_provider.url());
            println!("ACCOUNTING_URL={}", systems.accounting.url());
            println!("GENERAL_LEDGER_URL={}", systems.general_ledger.url());
            println!("TICKET_DESK_URL={}", systems.ticket_desk.url());
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
        }
        Action::Seed { day, platform, reference_only } => {
            let platform = Platform::connect(platform.resolve()?).await?;
            println!("{} objects", seed::seed(&platform, &day).await?);
            if !reference_only {
                seed::drop_files(&day, &platform.incoming()).await?;
            }
        }
        Action::TradingDay { day, platform, outside } => {
            let platform = Platform::connect(platform.resolve()?).await?;
            return Ok(demo::trading_day_on(&platform, &day, &outside).await?);
        }
        Action::Handler { listen, attribute, value } => handler::serve(listen, attribute, value).await?,
        Action::Count { day, platform, outside } => {
            let platform = Platform::connect(platform.resolve()?).await?;
            let expected: Expected = serde_json::from_slice(&std::fs::read(day.join("expected.json"))?)?;
            let counted = Counted::read(&platform, &outside).await?;
            let comparison = counted.compare(&expected);
            println!("{}", comparison.table());
            let differences: Vec<_> = comparison.differences().collect();
            let line =
                serde_json::json!({"ok": differences.is_empty(), "differences": differences, "counted": counted, "expected": expected});
            println!("{line}");
            return Ok(differences.is_empty());
        }
    }
    Ok(true)
}

// An error with all its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
