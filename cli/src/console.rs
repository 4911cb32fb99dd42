//! What is said on the terminal: messages that stay, and below them a few lines of status that are drawn anew. Where standard output is no
//! terminal, the status is a plain line from time to time.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

// How often the status is written where it can't be drawn anew.
const PLAIN_STATUS: Duration = Duration::from_secs(10);

/// The terminal. Clones speak to the same one.
#[derive(Clone, Debug)]
pub struct Console(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    redraws: bool,
    // The status lines on the screen now.
    shown: Vec<String>,
    plain_at: Option<Instant>,
    plain_last: String,
}

impl Default for Console {
    fn default() -> Self {
        let redraws = std::io::stdout().is_terminal();
        Self(Arc::new(Mutex::new(State { redraws, shown: Vec::new(), plain_at: None, plain_last: String::new() })))
    }
}

impl Console {
    /// Says something that stays.
    pub fn say(&self, text: impl AsRef<str>) {
        let state = self.state();
        let mut out = std::io::stdout().lock();
        // A terminal that is gone is no reason to stop.
        let _ = state.clear(&mut out).and_then(|()| writeln!(out, "{}", text.as_ref())).and_then(|()| state.draw(&mut out));
    }

    /// Shows the status: `lines` where they can be drawn anew, otherwise now and then `plain` in one line.
    pub fn status(&self, lines: Vec<String>, plain: &str) {
        let mut state = self.state();
        let mut out = std::io::stdout().lock();
        if state.redraws {
            let _ = state.clear(&mut out);
            state.shown = lines;
            let _ = state.draw(&mut out);
        } else if state.plain_last != plain && state.plain_at.is_none_or(|at| at.elapsed() >= PLAIN_STATUS) {
            state.plain_at = Some(Instant::now());
            plain.clone_into(&mut state.plain_last);
            let _ = writeln!(out, "{plain}");
        }
    }

    /// Takes the status away.
    pub fn end_status(&self) {
        let mut state = self.state();
        let _ = state.clear(&mut std::io::stdout().lock());
        state.shown.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&self, out: &mut impl Write) -> std::io::Result<()> {
        // Up over the status lines, then clear to the end of the screen.
        if self.shown.is_empty() { Ok(()) } else { write!(out, "\x1b[{}F\x1b[J", self.shown.len()) }
    }

    fn draw(&self, out: &mut impl Write) -> std::io::Result<()> {
        let width = terminal_width();
        for line in &self.shown {
            // A line that wraps would spoil the count.
            writeln!(out, "{}", line.chars().take(width).collect::<String>())?;
        }
        out.flush()
    }
}

fn terminal_width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes to `size` only, which is of the type it expects.
    let told = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if told == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 120 }
}

/// Log lines (of libraries) go above the status too.
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Console {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { console: self.clone(), line: Vec::new() }
    }
}

/// A log line that is being written.
#[derive(Debug)]
pub struct LogLine {
    console: Console,
    line: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.console.say(String::from_utf8_lossy(&self.line).trim_end());
    }
}
