//! Nothing is lost and nothing is done twice, whichever process is killed, whenever.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use autonomy_e2e::{LocalState, binary, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How often a process is killed; `AUTONOMY_TEST_KILLS` sets another number.
const KILLS: usize = 50;
/// The sales of the day; enough that the case is still running when the last process is killed.
const SALES: usize = 6_000;
/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(900);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Local mode itself is the supervisor (the cluster's part in Kubernetes) and stays; everything that holds or moves data is killed with
/// SIGKILL at random moments while the loyalty case runs under its misbehaving stand-ins. The demo counts what came out against what must
/// come out, and exits non-zero on any difference.
#[test]
fn counted_equals_expected_after_fifty_random_kills() {
    let kills = number("AUTONOMY_TEST_KILLS", KILLS);
    let sales = number("AUTONOMY_TEST_KILL_SALES", SALES);
    let seed = number("AUTONOMY_TEST_SEED", rand::random_range(0..1_000_000)) as u64;
    println!("seed {seed} (AUTONOMY_TEST_SEED={seed} repeats the choices)");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().expect("a temporary folder");
    // PostgreSQL runs as another user where we are root: it must be able to reach its folder.
    std::fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let output = std::fs::File::create(data.path().join("demo.log")).expect("a log file");
    let mut demo = Command::new(binary("retail-loyalty"))
        .args(["demo", "--once", "--listen", "127.0.0.1:0", "--sales", &sales.to_string(), "--data-dir"])
        .arg(data.path().join("data"))
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("the log file"))
        .stderr(output)
        .spawn()
        .expect("the demo starts");
    let started = Instant::now();
    let log = || std::fs::read_to_string(data.path().join("demo.log")).unwrap_or_default();

    let mut killed = std::collections::BTreeMap::<String, usize>::new();
    let mut total = 0;
    while total < kills {
        // The pause is part of what is random, not a wait for something.
        std::thread::sleep(Duration::from_millis(random.random_range(100..900)));
        if let Some(status) = demo.try_wait().expect("the demo's state") {
            panic!(
                "the demo ended ({status}) after {total} of {kills} kills; let it run longer (AUTONOMY_TEST_KILL_SALES) or see\n{}",
                log()
            );
        }
        assert!(started.elapsed() < PATIENCE, "the demo hangs:\n{}", log());
        let Some(state) = LocalState::read(&data.path().join("data/once/platform")) else { continue };
        // The data is being loaded only when workers are there.
        if !state.processes.iter().any(|process| process.name.starts_with("worker/")) {
            continue;
        }
        let victim = &state.processes[random.random_range(0..state.processes.len())];
        if kill(Pid::from_raw(victim.pid), Signal::SIGKILL).is_ok() {
            *killed.entry(victim.name.clone()).or_default() += 1;
            total += 1;
        }
    }
    println!("killed: {killed:?}");
    let status = loop {
        if let Some(status) = demo.try_wait().expect("the demo's state") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            let _ = kill(Pid::from_raw(demo.id() as i32), Signal::SIGTERM);
            panic!("the demo does not come to an end after {total} kills ({killed:?}):\n{}", log());
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let log = log();
    println!("{}", log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
    assert!(status.success(), "counted differs from expected after {total} kills ({killed:?}), seed {seed}:\n{log}");
}
