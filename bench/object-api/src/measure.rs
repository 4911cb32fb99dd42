//! What processes cost: CPU seconds and resident memory, from /proc.

use std::collections::HashMap;
use std::fs;

/// CPU time and memory of a process with all its children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU seconds since it began; those of children that have ended are in it.
    pub cpu_seconds: f64,
    /// The most memory that the process itself ever had resident, in MiB (children left out).
    pub peak_mebibytes: f64,
}

/// The cost of a process so far.
pub fn cost(pid: u32) -> Cost {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks: HashMap<u32, u64> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // The name, in parentheses, may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        children.entry(number(1) as u32).or_default().push(process);
        ticks.insert(process, (11..=14).map(number).sum());
    }
    let mut sum = 0;
    let mut open = vec![pid];
    while let Some(process) = open.pop() {
        sum += ticks.get(&process).copied().unwrap_or(0);
        open.extend(children.remove(&process).unwrap_or_default());
    }
    // Linux counts in hundredths of a second for user space.
    Cost { cpu_seconds: sum as f64 / 100.0, peak_mebibytes: peak(pid) }
}

/// What this process has cost so far, without its children: the load generator.
pub fn own_cost() -> Cost {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Cost { cpu_seconds: ticks as f64 / 100.0, peak_mebibytes: peak(std::process::id()) }
}

/// The memory that a process has resident now, in MiB.
pub fn resident(pid: u32) -> f64 {
    memory(pid, "VmRSS:")
}

/// The memory of its own that a process has resident now, in MiB: without the pages of its program, which all its roles share.
pub fn own(pid: u32) -> f64 {
    memory(pid, "RssAnon:")
}

fn peak(pid: u32) -> f64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, which: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// The value at a share (0 to 1) of sorted values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * share).round().max(0.0) as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}
