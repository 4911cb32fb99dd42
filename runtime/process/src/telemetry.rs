//! Logs and traces of a role's process, and how an error reads in them.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::oneshot;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::trace;

// How long the export of what is left may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How logs are written (to standard error).
#[derive(Clone, Debug, Args)]
pub struct LogOptions {
    /// What is logged, for example `info,autonomy_relay=debug`.
    #[arg(long, env = "AUTONOMY_LOG", default_value = "info", global = true)]
    pub log: String,
    /// The form of a log line.
    #[arg(long, env = "AUTONOMY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and traces of a process, until they are ended.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Begins logging, and traces where the environment says where to; once a process, where tokio runs. `role` names the process in traces where
    /// the environment does not.
    pub fn start(options: &LogOptions, role: &'static str) -> Self {
        let traces = trace::provider(role);
        let layer = traces.as_ref().ok().and_then(Option::as_ref).map(|provider| {
            let layer = tracing_opentelemetry::layer().with_tracer(trace::tracer(provider));
            let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
            layer.with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::INFO))
        });
        // A logger that is set already (in tests) stays.
        let _ = tracing_subscriber::registry().with(layer).with(log_layer(options)).try_init();
        let traces = traces.unwrap_or_else(|error| {
            tracing::error!(error = %error_chain(&error), "the process goes on without traces");
            None
        });
        Self { traces }
    }

    /// Exports what is left, for a moment: a collector that is away holds up no process that ends.
    pub async fn end(self) {
        let Some(traces) = self.traces else { return };
        let (ended, end) = oneshot::channel();
        // It blocks. A thread of the executor's would be waited for.
        std::thread::spawn(move || ended.send(traces.shutdown()));
        match tokio::time::timeout(FAREWELL, end).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last traces could not be exported"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last traces could not be exported in time"),
        }
    }
}

/// Begins logging, without traces; once a process.
pub fn start_logging(options: &LogOptions) {
    // A logger that is set already (in tests) stays.
    let _ = tracing_subscriber::registry().with(log_layer(options)).try_init();
}

// A filter that can't be read falls back to `info`.
fn log_layer<S>(options: &LogOptions) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    let filter = EnvFilter::try_new(&options.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans of traces are no matter of logs.
    let filter = match format!("{}=off", trace::TARGET).parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    }
}

/// An error with all its sources, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
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
