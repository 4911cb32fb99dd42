//! A service's steps and the steps within them: names, what each step has exactly one of, branches.

use super::naming::check_camel;
use super::service::ServiceCheck;
use crate::micro_service::{ForEachStep, GroupStep, Handler, STEP_LEVELS, Step};

/// Names that expressions find without a step of that name.
pub const RESERVED_VARIABLES: [&str; 15] = [
    "config",
    "event",
    "object",
    "objects",
    "group",
    "before",
    "row",
    "rows",
    "item",
    "file",
    "line",
    "cache",
    "now",
    "service",
    "scheduledAt",
];

// Words of CEL, which can't be variables.
const CEL_WORDS: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
];

// Where steps stand.
#[derive(Clone, Default)]
struct Around<'s> {
    // The names of the steps before, and of the elements that are gone through.
    names: Vec<&'s str>,
    level: usize,
    // Whether they run for several elements at a time.
    concurrent: bool,
}

impl<'a> ServiceCheck<'a> {
    pub(super) fn steps(&mut self) {
        let steps: &'a [Step] = &self.spec.steps;
        match &self.spec.handler {
            None if steps.is_empty() => self.faults.add("spec.steps", "a service needs at least one step, or a handler"),
            Some(_) if !steps.is_empty() => self.faults.add("spec.handler", "a service has either steps or a handler"),
            Some(_) if self.spec.trigger.files.is_some() => {
                self.faults.add("spec.handler", "a handler gets events, so its service needs trigger.queue or trigger.schedule")
            }
            Some(Handler { http: Some(http), embedded: None }) => drop(self.duration(&http.timeout, "spec.handler.http.timeout")),
            Some(Handler { http: None, embedded: Some(_) }) | None => {}
            Some(_) => self.faults.add("spec.handler", "a handler is exactly one of http and embedded"),
        }
        self.sequence(steps, "spec.steps", Around::default());
    }

    // Steps in order; what is named in them is known to those behind.
    fn sequence(&mut self, steps: &'a [Step], path: &str, mut around: Around<'a>) {
        for (index, step) in steps.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(name) = &step.name {
                self.variable(name, &format!("{path}.name"), "step", &mut around);
            }
            self.step(step, &path, &around);
        }
    }

    fn variable(&mut self, name: &'a str, path: &str, what: &str, around: &mut Around<'a>) {
        check_camel(name, path, what, &mut self.faults);
        if RESERVED_VARIABLES.contains(&name) || CEL_WORDS.contains(&name) {
            self.faults.add(path, format!("{name:?} means something else in expressions; give the {what} another name"));
        } else if around.names.contains(&name) {
            self.faults.add(path, format!("there are two steps {name:?}; the second would hide the first's outcome"));
        } else {
            around.names.push(name);
        }
    }

    fn step(&mut self, step: &'a Step, path: &str, around: &Around<'a>) {
        if !step.has_one_action() {
            self.faults.add(path, Step::ONE_ACTION);
        }
        if step.set.is_some() && step.name.is_none() {
            self.faults.add(path, "a set step needs a name, under which its value is found");
        }
        if let Some(lookup) = &step.lookup {
            self.lookup(lookup, &format!("{path}.lookup"));
        }
        if let Some(http) = &step.http {
            self.http(http, &format!("{path}.http"));
        }
        if let Some(put) = &step.put_object {
            self.document(&put.document, &format!("{path}.putObject.document"));
        }
        if let Some(create) = &step.create {
            self.create(create, &format!("{path}.create"));
        }
        if let Some(patch) = &step.patch {
            self.patch(patch, &format!("{path}.patch"));
        }
        if let Some(group) = &step.group {
            self.group(group, &format!("{path}.group"));
        }
        if let Some(fail) = &step.fail
            && fail.after.is_some()
            && !fail.retryable
        {
            self.faults
                .add(format!("{path}.fail.after"), "what is not tried again needs no wait: write retryable: true, or take this away");
        }
        if step.stop.is_some() && around.concurrent {
            let message = "the steps run for several elements at a time, and which of them are done then is not known: \
                           take concurrency away, or use when and choose";
            self.faults.add(format!("{path}.stop"), message);
        }
        self.inner(step, path, around);
    }

    fn inner(&mut self, step: &'a Step, path: &str, around: &Around<'a>) {
        if around.level == STEP_LEVELS {
            for (field, given) in [("choose", step.choose.is_some()), ("forEach", step.for_each.is_some())] {
                if given {
                    let message = format!("steps are inside steps {STEP_LEVELS} levels deep at the most");
                    self.faults.add(format!("{path}.{field}"), message);
                }
            }
            return;
        }
        let inside = Around { level: around.level + 1, ..around.clone() };
        let branches = step.choose.as_deref().unwrap_or_default();
        for (number, branch) in branches.iter().enumerate() {
            let path = format!("{path}.choose[{number}]");
            if branch.when.is_none() && number + 1 < branches.len() {
                self.faults.add(format!("{path}.when"), "only the last branch can do without: those behind this one would never be taken");
            }
            self.some(&branch.steps, &format!("{path}.steps"));
            self.sequence(&branch.steps, &format!("{path}.steps"), inside.clone());
        }
        if let Some(for_each) = &step.for_each {
            self.for_each(for_each, &format!("{path}.forEach"), inside);
        }
    }

    fn for_each(&mut self, for_each: &'a ForEachStep, path: &str, mut inside: Around<'a>) {
        if let Some(name) = &for_each.item_name {
            self.variable(name, &format!("{path}.as"), "element", &mut inside);
        }
        inside.concurrent |= for_each.concurrency > 1;
        self.some(&for_each.steps, &format!("{path}.steps"));
        self.sequence(&for_each.steps, &format!("{path}.steps"), inside);
    }

    fn some(&mut self, steps: &[Step], path: &str) {
        if steps.is_empty() {
            self.faults.add(path, "there is nothing to do here: give at least one step");
        }
    }

    fn group(&mut self, group: &GroupStep, path: &str) {
        for name in group.values.keys() {
            let path = format!("{path}.values.{name}");
            check_camel(name, &path, "value", &mut self.faults);
            if matches!(name.as_str(), "key" | "items") {
                self.faults.add(path, format!("each group has {name:?} already; take another name"));
            }
        }
    }
}
