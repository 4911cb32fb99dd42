//! Steps that hold steps, and groups of a list: compiling and running them. What is named within is known within; the outcome has it for those
//! behind.

use std::collections::HashMap;
use std::sync::Arc;

use autonomy_crds::micro_service::{Branch, ForEachStep, GroupStep};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::Failure;
use super::compile::{Action, CompiledStep, Steps};
use super::run::{Flow, Running, Strand};
use crate::expression::{EvaluationError, Expression, Kind, Object, Shape, Value};

/// The first branch that is due.
#[derive(Debug)]
pub(super) struct Choose {
    branches: Vec<CompiledBranch>,
    // The names of the steps in all branches.
    shape: Arc<Shape>,
}

#[derive(Debug)]
struct CompiledBranch {
    when: Option<Expression>,
    steps: Vec<CompiledStep>,
    // Where the outcome of each named step stands among the names of all branches.
    places: Vec<usize>,
}

/// Steps for each element.
#[derive(Debug)]
pub(super) struct ForEach {
    list: Expression,
    steps: Vec<CompiledStep>,
    shape: Arc<Shape>,
    max_items: usize,
    concurrency: usize,
}

/// Groups of a list.
#[derive(Debug)]
pub(super) struct Group {
    list: Expression,
    by: Expression,
    // `key`, `items` and the names of the values.
    shape: Arc<Shape>,
    values: Vec<Expression>,
}

impl Steps<'_> {
    pub(super) fn choose(&mut self, branches: &[Branch], path: &str, key: &str) -> (Option<Action>, Kind) {
        let base = self.names.len();
        let mut members: Vec<(String, Kind)> = Vec::new();
        let mut compiled = Vec::with_capacity(branches.len());
        for (number, branch) in branches.iter().enumerate() {
            let path = format!("{path}[{number}]");
            let when = branch.when.as_ref().and_then(|when| self.typed(when, &format!("{path}.when"), &Kind::Bool));
            let steps = self.sequence(&branch.steps, &format!("{path}.steps"), &format!("{key}.{number}."));
            let places =
                self.names.behind(base).iter().map(|(name, kind)| match members.iter_mut().enumerate().find(|(_, (own, _))| own == name) {
                    Some((place, (_, known))) => {
                        *known = known.clone().or(kind.clone());
                        place
                    }
                    None => {
                        members.push((name.clone(), kind.clone()));
                        members.len() - 1
                    }
                });
            let places = places.collect();
            self.names.truncate(base);
            compiled.push(CompiledBranch { when, steps, places });
        }
        let shape = Shape::new(members.iter().map(|(name, _)| name.as_str()));
        (Some(Action::Choose(Box::new(Choose { branches: compiled, shape }))), Kind::object("choose", members))
    }

    pub(super) fn for_each_element(&mut self, for_each: &ForEachStep, path: &str, key: &str) -> (Option<Action>, Kind) {
        let base = self.names.len();
        let (list, item) = self.list(&for_each.list, &format!("{path}.list"));
        let (name, index) = match &for_each.item_name {
            Some(name) => (name.as_str(), format!("{name}Index")),
            None => ("item", "index".to_owned()),
        };
        self.names.push(name, item);
        self.names.push(index, Kind::Int);
        let steps = self.sequence(&for_each.steps, &format!("{path}.steps"), &format!("{key}."));
        let members = self.names.behind(base + 2).to_vec();
        self.names.truncate(base);
        let shape = Shape::new(members.iter().map(|(name, _)| name.as_str()));
        let action = list.map(|list| {
            let whole = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).max(1);
            Action::ForEach(Box::new(ForEach {
                list,
                steps,
                shape,
                max_items: whole(for_each.max_items),
                concurrency: whole(for_each.concurrency),
            }))
        });
        (action, Kind::List(Kind::object("forEach", members).into()))
    }

    pub(super) fn group(&mut self, group: &GroupStep, path: &str) -> (Option<Action>, Kind) {
        let base = self.names.len();
        let (list, item) = self.list(&group.list, &format!("{path}.list"));
        self.names.push("item", item.clone());
        let by = self.expression(&group.by, &format!("{path}.by"));
        self.names.truncate(base);
        let key = by.as_ref().map_or(Kind::Any, |by| by.kind().clone());
        let mut members = vec![("key".to_owned(), key), ("items".to_owned(), Kind::List(item.into()))];
        for (name, kind) in &members {
            self.names.push(name, kind.clone());
        }
        let mut values = Vec::with_capacity(group.values.len());
        for (name, source) in &group.values {
            let value = self.expression(source, &format!("{path}.values.{name}"));
            members.push((name.clone(), value.as_ref().map_or(Kind::Any, |value| value.kind().clone())));
            values.extend(value);
        }
        self.names.truncate(base);
        let shape = Shape::new(members.iter().map(|(name, _)| name.as_str()));
        let kind = Kind::List(Kind::object("group", members).into());
        let action = list.zip(by).map(|(list, by)| Action::Group(Box::new(Group { list, by, shape, values })));
        (action, kind)
    }

    // A list, and what its elements are.
    fn list(&mut self, source: &str, path: &str) -> (Option<Expression>, Kind) {
        let list = self.typed(source, path, &Kind::List(Kind::Any.into()));
        let item = match list.as_ref().map(Expression::kind) {
            Some(Kind::List(item)) => (**item).clone(),
            _ => Kind::Any,
        };
        (list, item)
    }
}

impl Running<'_> {
    // A future of its own size, since steps hold steps.
    fn within<'r>(&'r self, steps: &'r [CompiledStep], strand: &'r mut Strand) -> BoxFuture<'r, Result<Flow, Failure>> {
        self.sequence(steps, strand).boxed()
    }

    /// Runs the branch that is due; none where a step ended all.
    pub(super) async fn choose(
        &self,
        step: &CompiledStep,
        index: usize,
        choose: &Choose,
        strand: &mut Strand,
    ) -> Result<Option<Value>, Failure> {
        let mut values = vec![Value::Null; choose.shape.names().len()];
        for (number, branch) in choose.branches.iter().enumerate() {
            let due = match &branch.when {
                Some(when) => when.evaluate_condition(&strand.variables, &self.identity).map_err(|error| strand.at(step, &error))?,
                None => true,
            };
            if !due {
                continue;
            }
            let (base, depth) = (strand.variables.len(), strand.place.len());
            strand.place.extend([index as u64, number as u64]);
            let flow = self.within(&branch.steps, strand).await?;
            strand.place.truncate(depth);
            if matches!(flow, Flow::Stopped) {
                return Ok(None);
            }
            for (outcome, place) in strand.variables.drain(base..).zip(&branch.places) {
                values[*place] = outcome;
            }
            break;
        }
        Ok(Some(Value::Object(Arc::new(Object::new(choose.shape.clone(), values)))))
    }

    /// Runs the steps for each element; none where a step ended all.
    pub(super) async fn for_each(
        &self,
        step: &CompiledStep,
        index: usize,
        for_each: &ForEach,
        strand: &mut Strand,
    ) -> Result<Option<Value>, Failure> {
        let items = list(&for_each.list, &strand.variables, self).map_err(|error| strand.at(step, &error))?;
        if items.len() > for_each.max_items {
            let message = format!("`{}` has {} elements; {} are the most", for_each.list.source(), items.len(), for_each.max_items);
            return Err(strand.at(step, &EvaluationError::told(message)));
        }
        let strands: Vec<Strand> = items.iter().enumerate().map(|(number, item)| strand.branch_off(index, number, item.clone())).collect();
        let base = strand.variables.len() + 2;
        let mut outcomes = Vec::with_capacity(items.len());
        let mut running = stream::iter(strands)
            .map(|mut strand| async move {
                let flow = self.within(&for_each.steps, &mut strand).await?;
                Ok::<_, Failure>((flow, strand))
            })
            .buffered(for_each.concurrency);
        while let Some(done) = running.next().await {
            let (flow, mut done) = done?;
            strand.operations.append(&mut done.operations);
            if matches!(flow, Flow::Stopped) {
                return Ok(None);
            }
            let values = done.variables.drain(base..).collect();
            outcomes.push(Value::Object(Arc::new(Object::new(for_each.shape.clone(), values))));
        }
        Ok(Some(Value::list(outcomes)))
    }

    /// The groups, in the order of their first elements.
    pub(super) fn group(&self, group: &Group, variables: &mut Vec<Value>) -> Result<Value, EvaluationError> {
        let base = variables.len();
        let items = list(&group.list, variables, self)?;
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            variables.push(item.clone());
            let key = group.by.evaluate(variables, &self.identity).map_err(|error| error.at_item(index));
            variables.truncate(base);
            let key = key?;
            let place = *places.entry(key.group_key()).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(item.clone());
        }
        let mut outcomes = Vec::with_capacity(groups.len());
        for (key, items) in groups {
            variables.extend([key, Value::list(items)]);
            let values = group.values.iter().map(|value| value.evaluate(variables, &self.identity)).collect::<Result<Vec<Value>, _>>();
            let members = variables.drain(base..).chain(values?).collect();
            outcomes.push(Value::Object(Arc::new(Object::new(group.shape.clone(), members))));
        }
        Ok(Value::list(outcomes))
    }
}

fn list(list: &Expression, variables: &[Value], running: &Running<'_>) -> Result<Arc<[Value]>, EvaluationError> {
    match list.evaluate(variables, &running.identity)? {
        Value::List(items) => Ok(items),
        other => Err(EvaluationError::told(format!("a list is needed, `{}` gives {}", list.source(), other.kind()))),
    }
}
