//! The whole story on one machine: a platform, the systems outside, a trading day, and the count at its end.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use autonomy_servers::Child;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::count::{Comparison, Counted, Outside, readable};
use crate::expected::Expected;
use crate::facts::Size;
use crate::platform::{LocalState, Platform, PlatformError, Queues};
use crate::seed::{self, SeedError};
use crate::stand_ins::{Addresses, StandInError, StandIns};
use crate::written::{self, WriteError};

/// The services of the case.
pub const SERVICES: [&str; 5] = ["store-file-loader", "loyalty-accrual", "ledger", "ledger-export", "account-invoice"];
// PostgreSQL, NATS, the models, the roles: how long until all answer.
const START_PATIENCE: Duration = Duration::from_secs(180);
// Nothing at all changes for this long: something is stuck.
const STUCK: Duration = Duration::from_secs(120);
// All queues are empty for this long, and the counts are not right: they never will be.
const SETTLED: Duration = Duration::from_secs(15);

/// What the demo does.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How large the day is.
    #[command(flatten)]
    pub size: Size,
    /// End with the summary; exit status 1 where counted and expected differ.
    #[arg(long)]
    pub once: bool,
    /// Where everything is kept. With --once it begins anew each time, otherwise it goes on where it was.
    #[arg(long, default_value = ".autonomy/demo")]
    pub data_dir: PathBuf,
    /// Where the object API listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The folder with the case's YAML.
    #[arg(long, default_value = "examples/retail-loyalty")]
    pub example: PathBuf,
    /// Where the stand-ins listen.
    #[command(flatten)]
    pub addresses: Addresses,
}

/// Why the demo can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The day can't be generated.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The stand-ins can't be started.
    #[error(transparent)]
    StandIns(#[from] StandInError),
    /// The platform can't be asked.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The day can't be brought in.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// A file can't be used.
    #[error("{} can't be used", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The data folder holds another day.
    #[error("{} holds a day of another size or seed; remove it, or give another --data-dir", folder.display())]
    OtherDay {
        /// The folder.
        folder: PathBuf,
    },
    /// The platform ended.
    #[error("`autonomy local` ended ({status}); its last words, from {}:\n{tail}", log.display())]
    Ended {
        /// How.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's end.
        tail: String,
    },
    /// The platform does not come up.
    #[error("the platform is not up after {seconds} s ({missing}); see {}", log.display())]
    NotUp {
        /// How long it was waited for.
        seconds: u64,
        /// What was seen last.
        missing: String,
        /// Its log.
        log: PathBuf,
    },
}

/// How the day ended.
pub struct Ending {
    /// What was counted.
    pub counted: Counted,
    /// Beside what is expected.
    pub comparison: Comparison,
    /// What still waited.
    pub queues: Queues,
    /// From the first file to the last thing done; the wait for the rest of the file that was cut short is not in it.
    pub took: Duration,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.to_owned();
    move |source| DemoError::File { path, source }
}

/// Runs the demo; gives whether all is as expected.
///
/// # Errors
/// When it can't be run to its end.
pub async fn run(options: Options) -> Result<bool, DemoError> {
    let folder = options.data_dir.join(if options.once { "once" } else { "stay" });
    if options.once && folder.join("day").exists() {
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    let day = folder.join("day");
    let expected = prepare_day(&options.size, &day)?;
    println!(
        "\n  The retail loyalty case: a trading day of {} receipts, {} stores, {} customers, {} members\n",
        readable(expected.receipts),
        readable(options.size.stores() as u64),
        readable(options.size.customers() as u64),
        readable(options.size.memberships() as u64)
    );

    let stand_ins = StandIns::start(&day, options.size.seed, options.addresses).await?;
    let outside = Outside {
        loyalty_provider: stand_ins.loyalty_provider.url(),
        accounting: stand_ins.accounting.url(),
        general_ledger: stand_ins.general_ledger.url(),
        ticket_desk: stand_ins.ticket_desk.url(),
    };
    let outside_file = folder.join("outside.json");
    fs::write(&outside_file, json!(outside).to_string()).map_err(at(&outside_file))?;

    let running = Running::start(&options, &folder, &outside)?;
    let outcome = tokio::select! {
        outcome = story(&options, &running, &day, &expected, &outside) => outcome,
        error = running.ended() => Err(error),
        () = interrupted() => {
            println!("\n  Stopping.");
            Ok(true)
        }
    };
    running.child.stop(Signal::SIGTERM, Duration::from_secs(30)).await;
    outcome
}

async fn interrupted() {
    // Without a handler the default applies: the process ends.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn story(options: &Options, running: &Running, day: &Path, expected: &Expected, outside: &Outside) -> Result<bool, DemoError> {
    let platform = running.wait_until_up().await?;
    println!("  Platform is up: object API on {}, log in {}", platform.local.api, running.log.display());
    println!(
        "  Outside: loyalty provider {}, accounting {}, general ledger {}, ticket desk {}",
        outside.loyalty_provider, outside.accounting, outside.general_ledger, outside.ticket_desk
    );
    let done = day.join("summary.txt");
    if !options.once && done.exists() {
        println!("  The trading day was done before; its summary is in {}.", done.display());
        println!("{}", what_to_try(options, running, &platform, day, outside));
        std::future::pending::<()>().await;
    }
    let seeded = seed::seed(&platform, day).await?;
    println!("  Reference data is in: {} objects", readable(seeded));
    println!("  The stores send their files to {}\n", platform.incoming().display());

    let ending = trading_day(&platform, day, expected, outside).await?;
    let (summary, line) = (summary(&ending, expected), json_line(&ending, expected));
    println!("{summary}\n{line}");
    if !options.once {
        fs::write(&done, format!("{summary}\n{line}\n")).map_err(at(&done))?;
        println!("{}", what_to_try(options, running, &platform, day, outside));
        std::future::pending::<()>().await;
    }
    Ok(ending.comparison.is_right())
}

/// Runs a generated day through a platform that somebody else started, and prints the summary; gives whether all is as expected.
///
/// # Errors
/// When the platform does not come up, or the day can't be brought in or counted.
pub async fn trading_day_on(platform: &Platform, day: &Path, outside: &Outside) -> Result<bool, DemoError> {
    let file = day.join("expected.json");
    let read = || serde_json::from_slice::<Expected>(&fs::read(&file)?).map_err(io::Error::other);
    let expected = read().map_err(at(&file))?;
    let begun = Instant::now();
    while platform.queues().await.is_err() || !platform.is_up(&[]).await {
        if begun.elapsed() > START_PATIENCE {
            platform.queues().await?;
            platform.count("/api/retail/sales", "").await?;
        }
        sleep(Duration::from_secs(1)).await;
    }
    println!("  Platform is up: object API on {}", platform.local.api);
    let seeded = seed::seed(platform, day).await?;
    println!("  Reference data is in: {} objects", readable(seeded));
    let ending = trading_day(platform, day, &expected, outside).await?;
    println!("{}\n{}", summary(&ending, &expected), json_line(&ending, &expected));
    Ok(ending.comparison.is_right())
}

fn prepare_day(size: &Size, day: &Path) -> Result<Expected, DemoError> {
    let file = day.join("expected.json");
    let world = crate::facts::World::new(size);
    let expected = Expected::of(&world);
    if file.exists() {
        let read = || serde_json::from_slice::<Expected>(&fs::read(&file)?).map_err(io::Error::other);
        if read().map_err(at(&file))? != expected {
            return Err(DemoError::OtherDay { folder: day.parent().unwrap_or(day).to_owned() });
        }
        return Ok(expected);
    }
    Ok(written::write_day(size, day)?)
}

/// `autonomy local` as a child.
struct Running {
    child: Child,
    log: PathBuf,
    data_dir: PathBuf,
}

impl Running {
    fn start(options: &Options, folder: &Path, outside: &Outside) -> Result<Self, DemoError> {
        let own = std::env::current_exe().map_err(at(Path::new("the demo's own binary")))?;
        let binary = own.with_file_name("autonomy");
        let data_dir = folder.join("platform");
        let log = folder.join("autonomy.log");
        let out = fs::File::create(&log).map_err(at(&log))?;
        let errors = out.try_clone().map_err(at(&log))?;
        let mut command = Command::new(&binary);
        command
            .args(["local", "-f"])
            .arg(&options.example)
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--listen", &options.listen.to_string()])
            .env("LOYALTY_PROVIDER_URL", &outside.loyalty_provider)
            .env("ACCOUNTING_URL", &outside.accounting)
            .env("GENERAL_LEDGER_URL", &outside.general_ledger)
            .env("TICKET_DESK_URL", &outside.ticket_desk)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors);
        // Ctrl-C is for us; we stop the platform.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = Child::spawn(command, Signal::SIGTERM).map_err(at(&binary))?;
        Ok(Self { child, log, data_dir })
    }

    async fn ended(&self) -> DemoError {
        let status = self.child.wait_exit().await.to_string();
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        DemoError::Ended { status, log: self.log.clone(), tail }
    }

    async fn wait_until_up(&self) -> Result<Platform, DemoError> {
        let begun = Instant::now();
        let mut missing = "local.json is not there".to_owned();
        let mut connected: Option<Platform> = None;
        while begun.elapsed() < START_PATIENCE {
            sleep(Duration::from_millis(200)).await;
            let Ok(local) = LocalState::read(&self.data_dir) else { continue };
            let platform = match &mut connected {
                // What runs changes while it starts.
                Some(platform) => {
                    platform.local = local;
                    platform
                }
                None => connected.insert(Platform::connect(local).await?),
            };
            if platform.is_up(&SERVICES).await {
                return Ok(platform.clone());
            }
            let running: Vec<&str> = platform.local.processes.iter().map(|process| process.name.as_str()).collect();
            missing = format!("running: {}", running.join(", "));
        }
        Err(DemoError::NotUp { seconds: START_PATIENCE.as_secs(), missing, log: self.log.clone() })
    }
}

/// Sends the stores' files and waits until everything is done and as expected, or nothing can change any more.
///
/// # Errors
/// When the files can't be sent, or the platform can't be counted.
pub async fn trading_day(platform: &Platform, day: &Path, expected: &Expected, outside: &Outside) -> Result<Ending, DemoError> {
    let begun = Instant::now();
    let incoming = platform.incoming();
    let sending = tokio::spawn({
        let day = day.to_owned();
        async move { seed::drop_files(&day, &incoming).await }
    });
    let mut progress = Progress::default();
    // When what is seen last changed, and since when all queues are empty.
    let (mut seen, mut changed, mut empty_since): (Option<Seen>, _, _) = (None, Instant::now(), None);
    let mut took = Duration::ZERO;
    loop {
        sleep(Duration::from_millis(500)).await;
        // While a process of the platform restarts it can't be asked; it is asked again.
        let Ok(now) = Seen::read(platform).await else {
            if changed.elapsed() > STUCK {
                break;
            }
            continue;
        };
        progress.show(&now, expected, begun.elapsed());
        if seen.as_ref() != Some(&now) {
            if seen.as_ref().is_none_or(|seen| !seen.has_same_objects(&now)) {
                took = begun.elapsed();
            }
            (seen, changed) = (Some(now.clone()), Instant::now());
        }
        if changed.elapsed() > STUCK {
            break;
        }
        if !(sending.is_finished() && now.queues.is_empty()) {
            empty_since = None;
            continue;
        }
        let since = *empty_since.get_or_insert_with(Instant::now);
        if now.is_done(expected)
            && let Ok(counted) = Counted::read(platform, outside).await
        {
            let comparison = counted.compare(expected);
            if comparison.is_right() {
                progress.end();
                return Ok(Ending { counted, comparison, queues: now.queues, took });
            }
        }
        if since.elapsed() > SETTLED {
            break;
        }
    }
    progress.end();
    if sending.is_finished()
        && let Ok(sent) = sending.await
    {
        sent?;
    }
    let counted = Counted::read(platform, outside).await?;
    let queues = platform.queues().await?;
    let comparison = counted.compare(expected);
    Ok(Ending { counted, comparison, queues, took })
}

/// What can be seen at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    sales: u64,
    accruals: u64,
    posted: u64,
    batches: u64,
    invoices: u64,
    dead_letters: u64,
    queues: Queues,
}

impl Seen {
    async fn read(platform: &Platform) -> Result<Self, PlatformError> {
        Ok(Self {
            queues: platform.queues().await?,
            sales: platform.count("/api/retail/sales", "").await?,
            accruals: platform.count("/api/retail/loyaltyAccruals", "").await?,
            posted: platform.count("/api/retail/loyaltyAccruals", "state=posted").await?,
            batches: platform.count("/api/retail/ledgerBatches", "").await?,
            invoices: platform.count("/api/retail/invoices", "").await?,
            dead_letters: platform.dead_letters().await?.values().sum(),
        })
    }

    fn has_same_objects(&self, other: &Self) -> bool {
        Self { queues: Queues::default(), ..self.clone() } == Self { queues: Queues::default(), ..other.clone() }
    }

    fn is_done(&self, expected: &Expected) -> bool {
        self.sales >= expected.sales.count && self.posted >= expected.accruals.count && self.invoices >= expected.invoices.count
    }
}

// How many lines the progress takes on a terminal.
const PROGRESS_LINES: usize = 5;

#[derive(Default)]
struct Progress {
    drawn: bool,
    last_plain: Option<Instant>,
}

impl Progress {
    fn show(&mut self, seen: &Seen, expected: &Expected, elapsed: Duration) {
        let mut out = io::stdout();
        // A terminal that is gone is no reason to stop.
        if out.is_terminal() {
            let up = if self.drawn { format!("\x1b[{PROGRESS_LINES}F\x1b[J") } else { String::new() };
            let _ = writeln!(out, "{up}{}", Self::lines(seen, expected, elapsed)).and_then(|()| out.flush());
            self.drawn = true;
        } else if self.last_plain.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
            let of = |value: u64, goal: u64| format!("{}/{}", readable(value), readable(goal));
            let _ = writeln!(
                out,
                "  {:>4} s  sales {}  accruals {}  in the ledger {} ({} batches)  invoices {}  retries waiting {}  dead letters {}",
                elapsed.as_secs(),
                of(seen.sales, expected.sales.count),
                of(seen.accruals, expected.accruals.count),
                readable(seen.posted),
                readable(seen.batches),
                of(seen.invoices, expected.invoices.count),
                readable(seen.queues.retries),
                readable(seen.dead_letters),
            );
            self.last_plain = Some(Instant::now());
        }
    }

    fn lines(seen: &Seen, expected: &Expected, elapsed: Duration) -> String {
        let bar = |label: &str, value: u64, goal: u64, more: String| {
            let full = usize::try_from(value.min(goal) * 20 / goal.max(1)).unwrap_or(0);
            format!("  {label:<12} {:>9} of {:<9} {}{} {more}", readable(value), readable(goal), "█".repeat(full), "░".repeat(20 - full))
        };
        let retries = format!("{} wait to be tried again", readable(seen.queues.retries));
        [
            bar("sales", seen.sales, expected.sales.count, format!("{} files wait", seen.queues.files)),
            bar("accruals", seen.accruals, expected.accruals.count, retries),
            bar("in ledger", seen.posted, expected.accruals.count, format!("{} batches", readable(seen.batches))),
            bar("invoices", seen.invoices, expected.invoices.count, String::new()),
            bar("dead letters", seen.dead_letters, expected.tickets, format!("{} s", elapsed.as_secs())),
        ]
        .join("\n")
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            println!();
        }
    }
}

fn summary(ending: &Ending, expected: &Expected) -> String {
    let seconds = ending.took.as_secs_f64();
    let rate = |count: u64| readable((count as f64 / seconds.max(0.001)) as u64);
    let differences = ending.comparison.differences().count();
    let verdict = match (differences, ending.queues.is_empty()) {
        (0, _) => "Everything counted is as expected.".to_owned(),
        (count, true) => format!("{count} of {} are NOT as expected.", ending.comparison.rows.len()),
        (count, false) => {
            format!("{count} of {} are NOT as expected, and work is left: {:?}.", ending.comparison.rows.len(), ending.queues)
        }
    };
    format!(
        "\n{}\n\n  On the way the systems outside misbehaved: {}.\n  One store's file was cut short, one came twice, {} receipts were broken.\n  \
         It took {seconds:.1} s: {} sales/s from file to ledger, on this machine.\n\n  {verdict}\n",
        ending.comparison.table(),
        ending.counted.troubles(),
        readable(expected.rejected_receipts),
        rate(ending.counted.sales.count),
    )
}

fn json_line(ending: &Ending, expected: &Expected) -> String {
    let differences: Vec<_> = ending.comparison.differences().collect();
    json!({
        "ok": differences.is_empty(),
        "seconds": (ending.took.as_secs_f64() * 10.0).round() / 10.0,
        "differences": differences,
        "counted": ending.counted,
        "expected": expected,
    })
    .to_string()
}

fn what_to_try(options: &Options, running: &Running, platform: &Platform, day: &Path, outside: &Outside) -> String {
    let autonomy = std::env::current_exe().unwrap_or_default().with_file_name("autonomy");
    let (autonomy, data_dir, api) = (autonomy.display(), running.data_dir.display(), &platform.local.api);
    let world = crate::facts::World::new(&options.size);
    let unknown =
        world.customers.iter().filter_map(|customer| customer.membership.as_ref()).find(|membership| !membership.known_to_provider);
    let member = unknown.map_or("M00000007", |membership| membership.number.as_str());
    format!(
        "  It stays up. Try:

  The data
    curl -s '{api}/api/retail/sales?loyalty=accrued&sort=-soldAt&limit=2'
    curl -s '{api}/api/retail/ledgerBatches?limit=1'
    curl -s '{api}/api/retail/openapi.json'
    curl -s {provider}/books

  Make the provider know a member that it did not know, and hand its sales over again
    {autonomy} dead-letters list --data-dir {data_dir}
    curl -s {provider}/members -H 'content-type: application/json' -d '{{\"membershipNumber\": \"{member}\"}}'
    {autonomy} dead-letters redrive --all --service loyalty-accrual --data-dir {data_dir}

  Send the file that was cut short once more, whole
    cp {again}/*.csv {incoming}/

  Add an attribute to an entity: the running API and the events have it a moment later
    $EDITOR {example}/models/retail.yaml

  Ctrl-C stops it; `make demo` goes on where it was.
",
        provider = outside.loyalty_provider,
        again = day.join("again").display(),
        incoming = platform.incoming().display(),
        example = options.example.canonicalize().unwrap_or_else(|_| options.example.clone()).display(),
    )
}
