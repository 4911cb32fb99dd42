//! What the tests came to, for people and for CI servers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

/// A case that was run.
#[derive(Debug)]
pub(super) struct Tested {
    pub case: String,
    /// How it differs from what is expected; empty where it passed.
    pub differences: Vec<String>,
}

/// All cases of all files.
#[derive(Debug, Default)]
pub(super) struct Report {
    files: Vec<(PathBuf, Vec<Tested>)>,
}

impl Report {
    pub fn add(&mut self, file: &Path, tested: Vec<Tested>) {
        self.files.push((file.to_owned(), tested));
    }

    pub fn is_empty(&self) -> bool {
        self.counts().0 == 0
    }

    pub fn has_failed(&self) -> bool {
        self.counts().1 > 0
    }

    // All cases, and those that failed.
    fn counts(&self) -> (usize, usize) {
        let cases = || self.files.iter().flat_map(|(_, tested)| tested);
        (cases().count(), cases().filter(|tested| !tested.differences.is_empty()).count())
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (file, tested) in &self.files {
            push(&mut text, format_args!("{}\n", file.display()));
            for Tested { case, differences } in tested {
                push(&mut text, format_args!("  {} {case}\n", if differences.is_empty() { "ok    " } else { "FAILED" }));
                for difference in differences {
                    push(&mut text, format_args!("         {difference}\n"));
                }
            }
        }
        let (all, failed) = self.counts();
        push(&mut text, format_args!("{} passed, {failed} failed\n", all - failed));
        text
    }

    pub fn json(&self) -> String {
        let (all, failed) = self.counts();
        let files = self.files.iter().map(|(file, tested)| {
            let cases = tested
                .iter()
                .map(|Tested { case, differences }| json!({"name": case, "passed": differences.is_empty(), "differences": differences}));
            json!({"file": file.display().to_string(), "cases": cases.collect::<Vec<_>>()})
        });
        let report = json!({"passed": all - failed, "failed": failed, "files": files.collect::<Vec<_>>()});
        format!("{report:#}\n")
    }

    pub fn junit(&self) -> String {
        let (all, failed) = self.counts();
        let mut xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{all}\" failures=\"{failed}\">\n");
        for (file, tested) in &self.files {
            let failed = tested.iter().filter(|tested| !tested.differences.is_empty()).count();
            let suite = escaped(&file.display().to_string());
            push(&mut xml, format_args!("  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failed}\">\n", tested.len()));
            for Tested { case, differences } in tested {
                let case = escaped(case);
                if differences.is_empty() {
                    push(&mut xml, format_args!("    <testcase classname=\"{suite}\" name=\"{case}\"/>\n"));
                    continue;
                }
                let (first, all) = (escaped(&differences[0]), escaped(&differences.join("\n")));
                push(
                    &mut xml,
                    format_args!(
                        "    <testcase classname=\"{suite}\" name=\"{case}\"><failure message=\"{first}\">{all}</failure></testcase>\n"
                    ),
                );
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = text.write_fmt(more);
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // No XML has other control characters.
            c if c.is_control() && c != '\n' => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}
