//! From CEL's syntax tree to a tree that is quick to evaluate, with names resolved and what is known of kinds checked.

use std::sync::Arc;

use autonomy_crds::Faults;
use cel::Env;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use regex::Regex;

use super::Expression;
use super::arithmetic::Operator;
use super::functions::{self, Function};
use super::json;
use super::kind::Kind;
use super::value::{Shape, Value};

/// The variables that an expression may use, in the order of their values at evaluation.
#[derive(Clone, Debug, Default)]
pub struct Names {
    variables: Vec<(String, Kind)>,
}

impl Names {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable, or changes what is known of it; gives its place.
    pub fn add(&mut self, name: impl Into<String>, kind: Kind) -> usize {
        let name = name.into();
        if let Some(place) = self.place(&name) {
            self.variables[place].1 = kind;
            return place;
        }
        self.variables.push((name, kind));
        self.variables.len() - 1
    }

    /// Adds a variable behind all others, which hides one of that name until [`Self::truncate`]; gives its place.
    pub fn push(&mut self, name: impl Into<String>, kind: Kind) -> usize {
        self.variables.push((name.into(), kind));
        self.variables.len() - 1
    }

    /// Forgets all variables but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.variables.truncate(count);
    }

    /// The variables from a place on.
    pub fn behind(&self, place: usize) -> &[(String, Kind)] {
        self.variables.get(place..).unwrap_or_default()
    }

    /// Where a variable stands.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.variables.iter().rposition(|(own, _)| own == name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Value),
    Variable(usize),
    Local(usize),
    Member { of: Box<Node>, name: Box<str>, label: Box<str> },
    Has { of: Box<Node>, name: Box<str> },
    Index { of: Box<Node>, index: Box<Node>, label: Box<str> },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional { condition: Box<Node>, yes: Box<Node>, no: Box<Node> },
    Binary { operator: Operator, left: Box<Node>, right: Box<Node> },
    List(Vec<Node>),
    Object { shape: Arc<Shape>, values: Vec<Node> },
    Map(Vec<(Node, Node)>),
    Default(Box<Node>, Box<Node>),
    Loop(Box<Loop>),
    Call { function: &'static Function, arguments: Vec<Node>, pattern: Option<Regex> },
}

#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) over: Node,
    pub(super) label: Box<str>,
    pub(super) condition: Option<Node>,
    pub(super) body: Node,
}

impl Node {
    // Notes the members used of a variable; false where it is used as a whole.
    pub(super) fn members_of(&self, variable: usize, members: &mut Vec<String>) -> bool {
        if let Node::Member { of, name, .. } | Node::Has { of, name } = self
            && matches!(**of, Node::Variable(place) if place == variable)
        {
            if !members.iter().any(|own| **own == **name) {
                members.push(name.to_string());
            }
            return true;
        }
        match self {
            Node::Constant(_) | Node::Local(_) => true,
            Node::Variable(place) => *place != variable,
            Node::Member { of, .. } | Node::Has { of, .. } | Node::Not(of) | Node::Negate(of) => of.members_of(variable, members),
            Node::Index { of: a, index: b, .. }
            | Node::And(a, b)
            | Node::Or(a, b)
            | Node::Default(a, b)
            | Node::Binary { left: a, right: b, .. } => a.members_of(variable, members) && b.members_of(variable, members),
            Node::Conditional { condition, yes, no } => [condition, yes, no].iter().all(|node| node.members_of(variable, members)),
            Node::List(nodes) | Node::Object { values: nodes, .. } | Node::Call { arguments: nodes, .. } => {
                nodes.iter().all(|node| node.members_of(variable, members))
            }
            Node::Map(entries) => {
                entries.iter().all(|(name, value)| name.members_of(variable, members) && value.members_of(variable, members))
            }
            Node::Loop(looping) => {
                looping.over.members_of(variable, members)
                    && looping.condition.as_ref().is_none_or(|condition| condition.members_of(variable, members))
                    && looping.body.members_of(variable, members)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    SortBy,
    GroupBy,
}

impl LoopKind {
    fn of(call: &CallExpr) -> Option<Self> {
        let kind = match call.func_name.as_str() {
            "all" => Self::All,
            "exists" => Self::Exists,
            "exists_one" | "existsOne" => Self::ExistsOne,
            "filter" => Self::Filter,
            "map" => Self::Map,
            "sortBy" => Self::SortBy,
            "groupBy" => Self::GroupBy,
            _ => return None,
        };
        (call.target.is_some() && (call.args.len() == 2 || (kind == Self::Map && call.args.len() == 3))).then_some(kind)
    }
}

/// Parses and checks an expression.
///
/// # Errors
/// All that is wrong with it; every fault has the path given.
pub fn compile(source: &str, names: &Names, path: &str) -> Result<Expression, Faults> {
    let refused = |message: &str| {
        let mut faults = Faults::default();
        faults.add(path, message);
        Err(faults)
    };
    if source.len() > MAX_LENGTH {
        return refused("an expression has at most 8192 bytes; split it into `set` steps");
    }
    if bracket_depth(source) > MAX_BRACKETS {
        return refused("an expression has at most 64 brackets inside each other; split it into `set` steps");
    }
    // The parser descends several calls a level, more than a small thread's stack may hold.
    std::thread::scope(|scope| {
        let parsing = std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, || parse_and_check(source, names, path));
        match parsing.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(compiled)) => compiled,
            _ => refused("the expression can't be parsed"),
        }
    })
}

const MAX_LENGTH: usize = 8192;
const MAX_BRACKETS: usize = 64;
const MAX_DEPTH: usize = 200;
const PARSER_STACK: usize = 256 << 20;

fn bracket_depth(source: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn parse_and_check(source: &str, names: &Names, path: &str) -> Result<Expression, Faults> {
    let parser = Env::default().with_optional_support(false).parser();
    let (tree, info) = parser.parse_with_source_info(source).map_err(|errors| {
        let mut faults = Faults::default();
        for error in &errors.errors {
            faults.add(path, format!("`{source}` is not CEL: {} at line {}, column {}", error.msg, error.pos.0, error.pos.1));
        }
        faults
    })?;
    let mut compiler = Compiler { names, source, info, locals: Vec::new(), depth: 0, faults: Faults::default(), path };
    let (node, kind) = compiler.expression(&tree);
    let expression = Expression { source: source.to_owned(), node, kind };
    compiler.faults.none_or(expression)
}

struct Compiler<'a> {
    names: &'a Names,
    source: &'a str,
    info: SourceInfo,
    locals: Vec<(String, Kind)>,
    depth: usize,
    faults: Faults,
    path: &'a str,
}

type Compiled = (Node, Kind);

impl Compiler<'_> {
    fn fault(&mut self, message: impl Into<String>) -> Compiled {
        self.faults.add(self.path, format!("{} (in `{}`)", message.into(), self.source));
        (Node::Constant(Value::Null), Kind::Any)
    }

    fn expression(&mut self, tree: &IdedExpr) -> Compiled {
        if self.depth == MAX_DEPTH {
            return self.fault("the expression is too deep; split it into `set` steps");
        }
        self.depth += 1;
        let compiled = self.node(tree);
        self.depth -= 1;
        compiled
    }

    fn node(&mut self, tree: &IdedExpr) -> Compiled {
        match &tree.expr {
            Expr::Literal(literal) => self.literal(literal, tree.id),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let (items, kinds): (Vec<Node>, Vec<Kind>) = list.elements.iter().map(|item| self.expression(item)).unzip();
                let item = kinds.into_iter().reduce(Kind::or).unwrap_or(Kind::Any);
                (Node::List(items), Kind::List(Arc::new(item)))
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(_) => self.fault("message types are not known here; write {\"name\": value}"),
            Expr::Comprehension(_) | Expr::Unspecified => self.fault("this form of expression is not known here"),
        }
    }

    fn literal(&mut self, literal: &LiteralValue, id: u64) -> Compiled {
        match literal {
            LiteralValue::Boolean(value) => (Node::Constant(Value::Bool(*value.inner())), Kind::Bool),
            LiteralValue::Int(value) => (Node::Constant(Value::Int(*value.inner())), Kind::Int),
            LiteralValue::UInt(value) => match i64::try_from(*value.inner()) {
                Ok(value) => (Node::Constant(Value::Int(value)), Kind::Int),
                Err(_) => self.fault(format!("{} does not fit in 64 bits with a sign", value.inner())),
            },
            LiteralValue::Double(value) => self.decimal(*value.inner(), id),
            LiteralValue::String(value) => (Node::Constant(Value::text(value.inner())), Kind::Text),
            LiteralValue::Null => (Node::Constant(Value::Null), Kind::Null),
            LiteralValue::Bytes(_) => self.fault("bytes are not known here; write a string"),
        }
    }

    // The parser has made a float of the literal; its digits are taken from the source.
    fn decimal(&mut self, value: f64, id: u64) -> Compiled {
        // Offsets are in bytes.
        let digits = self.info.offset_for(id).and_then(|(start, stop)| self.source.get(start as usize..=stop as usize));
        let exact = digits.filter(|digits| digits.parse::<f64>().is_ok_and(|parsed| parsed.abs() == value.abs()));
        match exact.and_then(json::parse_decimal) {
            Some(number) => {
                let number = if value.is_sign_negative() && number.is_sign_positive() { -number } else { number };
                (Node::Constant(Value::Decimal(number)), Kind::Decimal)
            }
            None => self.fault(format!("the decimal {value} has more than 28 digits")),
        }
    }

    fn name(&mut self, name: &str) -> Compiled {
        if let Some(place) = self.locals.iter().rposition(|(own, _)| own == name) {
            return (Node::Local(place), self.locals[place].1.clone());
        }
        if let Some(place) = self.names.place(name) {
            return (Node::Variable(place), self.names.variables[place].1.clone());
        }
        let known = self.names.variables.iter().map(|(own, _)| own.as_str());
        let message = format!("there is no variable {name} here{}", suggestion(name, known));
        self.fault(message)
    }

    fn select(&mut self, select: &SelectExpr) -> Compiled {
        let (of, kind) = self.expression(&select.operand);
        let member = self.member_kind(&kind, &select.field, &label(&select.operand));
        let name = select.field.as_str().into();
        let of = Box::new(of);
        if select.test { (Node::Has { of, name }, Kind::Bool) } else { (Node::Member { of, name, label: label(&select.operand) }, member) }
    }

    fn member_kind(&mut self, kind: &Kind, name: &str, label: &str) -> Kind {
        let message = match kind {
            Kind::Object(Some(object)) => match object.members.iter().find(|(own, _)| own == name) {
                Some((_, kind)) => return kind.clone(),
                None => {
                    let known = object.members.iter().map(|(own, _)| own.as_str());
                    format!("{label} ({}) has no member {name}{}", object.name, suggestion(name, known))
                }
            },
            Kind::Any | Kind::Null | Kind::Object(None) => return Kind::Any,
            other => format!("{label} is {other} and has no member {name}"),
        };
        self.fault(message).1
    }

    fn map<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Compiled {
        let mut compiled = Vec::new();
        let mut members: Option<Vec<(String, Kind)>> = Some(Vec::new());
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { continue };
            let (name, name_kind) = self.expression(&entry.key);
            if !name_kind.may_be(&Kind::Text) {
                self.fault(format!("a member's name is a string, not {name_kind}"));
            }
            let (value, kind) = self.expression(&entry.value);
            match (&name, &mut members) {
                (Node::Constant(Value::Text(text)), Some(members)) => {
                    if members.iter().any(|(own, _)| **own == **text) {
                        self.faults.add(self.path, format!("the member {text} is given twice (in `{}`)", self.source));
                    }
                    members.push((text.to_string(), kind));
                }
                _ => members = None,
            }
            compiled.push((name, value));
        }
        match members {
            Some(members) => {
                let shape = Shape::new(members.iter().map(|(name, _)| name.as_str()));
                let values = compiled.into_iter().map(|(_, value)| value).collect();
                (Node::Object { shape, values }, Kind::object("this expression", members))
            }
            None => (Node::Map(compiled), Kind::Object(None)),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Compiled {
        if let Some(kind) = LoopKind::of(call) {
            return self.looping(kind, call);
        }
        let arguments: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (call.func_name.as_str(), arguments.as_slice()) {
            ("has", [IdedExpr { expr: Expr::Select(select), .. }]) => {
                let tested = SelectExpr { test: true, ..select.clone() };
                self.select(&tested)
            }
            ("has", _) => self.fault("has(x.member) takes one member"),
            ("default" | "orValue", [value, otherwise]) => {
                let ((value, kind), (otherwise, other)) = (self.expression(value), self.expression(otherwise));
                (Node::Default(Box::new(value), Box::new(otherwise)), kind.or(other))
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let condition = Box::new(self.condition(condition));
                let ((yes, yes_kind), (no, no_kind)) = (self.expression(yes), self.expression(no));
                (Node::Conditional { condition, yes: Box::new(yes), no: Box::new(no) }, yes_kind.or(no_kind))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                (Node::And(Box::new(self.condition(left)), Box::new(self.condition(right))), Kind::Bool)
            }
            (operators::LOGICAL_OR, [left, right]) => {
                (Node::Or(Box::new(self.condition(left)), Box::new(self.condition(right))), Kind::Bool)
            }
            (operators::LOGICAL_NOT, [operand]) => (Node::Not(Box::new(self.condition(operand))), Kind::Bool),
            (operators::NEGATE, [operand]) => {
                let (operand, kind) = self.expression(operand);
                if !(kind.may_be(&Kind::Int) || kind.may_be(&Kind::Duration)) {
                    return self.fault(format!("- can't be used with {kind}"));
                }
                (Node::Negate(Box::new(operand)), kind)
            }
            (operators::INDEX, [of, index]) => self.index(of, index),
            (name, [left, right]) if operator(name).is_some() => match operator(name) {
                Some(operator) => self.binary(operator, left, right),
                None => self.fault("this operator is not known here"),
            },
            (name, arguments) => self.function(name, arguments),
        }
    }

    fn condition(&mut self, tree: &IdedExpr) -> Node {
        let (node, kind) = self.expression(tree);
        if !kind.may_be(&Kind::Bool) {
            self.fault(format!("true or false is expected, not {kind}"));
        }
        node
    }

    fn index(&mut self, of: &IdedExpr, index: &IdedExpr) -> Compiled {
        let label = label(of);
        let (of, kind) = self.expression(of);
        let (index, index_kind) = self.expression(index);
        let element = match (&kind, &index) {
            (Kind::Object(Some(_)), Node::Constant(Value::Text(name))) => self.member_kind(&kind, name, &label),
            (Kind::List(item), _) if index_kind.may_be(&Kind::Int) => (**item).clone(),
            (Kind::Object(_), _) if index_kind.may_be(&Kind::Text) => Kind::Any,
            (Kind::Any | Kind::Null, _) => Kind::Any,
            _ => self.fault(format!("{label} is {kind} and can't be indexed by {index_kind}")).1,
        };
        (Node::Index { of: Box::new(of), index: Box::new(index), label }, element)
    }

    fn binary(&mut self, operator: Operator, left: &IdedExpr, right: &IdedExpr) -> Compiled {
        let ((left, left_kind), (right, right_kind)) = (self.expression(left), self.expression(right));
        let Some(kind) = outcome(operator, &left_kind, &right_kind) else {
            let hint = match (&left_kind, &right_kind) {
                (Kind::Text, other) | (other, Kind::Text) if other.is_number() => "; convert with decimal(x), int(x) or string(x)",
                (Kind::Text, Kind::Timestamp) | (Kind::Timestamp, Kind::Text) => "; convert with timestamp(x)",
                _ => "",
            };
            return self.fault(format!("{} can't be used with {left_kind} and {right_kind}{hint}", operator.symbol()));
        };
        (Node::Binary { operator, left: Box::new(left), right: Box::new(right) }, kind)
    }

    fn looping(&mut self, kind: LoopKind, call: &CallExpr) -> Compiled {
        let (Some(over_tree), Some((variable, bodies))) = (call.target.as_deref(), call.args.split_first()) else {
            return self.fault(format!("{} is called on a list", call.func_name));
        };
        let label = label(over_tree);
        let (over, over_kind) = self.expression(over_tree);
        let Expr::Ident(variable) = &variable.expr else {
            return self.fault(format!("the first argument of {} is a name for the elements", call.func_name));
        };
        let item = match &over_kind {
            Kind::List(item) => (**item).clone(),
            Kind::Any | Kind::Null => Kind::Any,
            Kind::Object(_) => Kind::Text,
            other => return self.fault(format!("{label} is {other}, not a list")),
        };
        self.locals.push((variable.clone(), item.clone()));
        let mut condition = None;
        if let [first, _] = bodies {
            condition = Some(self.condition(first));
        }
        let (body, body_kind) = match bodies.last() {
            Some(body) => self.expression(body),
            None => self.fault(format!("{} needs an expression", call.func_name)),
        };
        self.locals.pop();
        let result = match kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter if !body_kind.may_be(&Kind::Bool) => {
                return self.fault(format!("{} needs true or false, not {body_kind}", call.func_name));
            }
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Kind::Bool,
            LoopKind::Filter | LoopKind::SortBy => Kind::List(Arc::new(item)),
            LoopKind::Map => Kind::List(Arc::new(body_kind)),
            LoopKind::GroupBy => Kind::List(Arc::new(Kind::object("groupBy", [("key", body_kind), ("items", Kind::List(Arc::new(item)))]))),
        };
        (Node::Loop(Box::new(Loop { kind, over, label, condition, body })), result)
    }

    fn function(&mut self, name: &str, arguments: &[&IdedExpr]) -> Compiled {
        let Some(function) = functions::find(name) else {
            let message = format!("there is no function {name}{}", suggestion(name, functions::names()));
            return self.fault(message);
        };
        let (nodes, kinds): (Vec<Node>, Vec<Kind>) = arguments.iter().map(|argument| self.expression(argument)).unzip();
        if !function.arity.contains(&nodes.len()) {
            return self.fault(format!("it is {}, not {name} with {} arguments", function.signature, nodes.len()));
        }
        if let Some((argument, wanted)) = function.misfit(&kinds) {
            return self.fault(format!("{} takes {wanted}, not {argument}", function.signature));
        }
        // A pattern is compiled once, where it is a literal.
        let mut pattern = None;
        if function.takes_pattern
            && let Some(Node::Constant(Value::Text(text))) = nodes.get(1)
        {
            match functions::pattern(text) {
                Ok(compiled) => pattern = Some(compiled),
                Err(message) => return self.fault(message),
            }
        }
        let kind = function.result(&kinds);
        (Node::Call { function, arguments: nodes, pattern }, kind)
    }
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Remainder,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

// What an operator gives; `None` where it can't be used with these.
fn outcome(operator: Operator, left: &Kind, right: &Kind) -> Option<Kind> {
    let unknown = matches!(left, Kind::Any | Kind::Null) || matches!(right, Kind::Any | Kind::Null);
    match operator {
        // Equality of kinds that differ is never true: an author's slip.
        Operator::Equal | Operator::NotEqual => left.may_be(right).then_some(Kind::Bool),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            (left.may_be(right) && !matches!(left, Kind::List(_) | Kind::Object(_))).then_some(Kind::Bool)
        }
        Operator::In => match right {
            Kind::List(item) => left.may_be(item).then_some(Kind::Bool),
            Kind::Object(_) => left.may_be(&Kind::Text).then_some(Kind::Bool),
            Kind::Any | Kind::Null => Some(Kind::Bool),
            _ => None,
        },
        _ if unknown => Some(Kind::Any),
        _ => match (operator, left, right) {
            (_, Kind::Int, Kind::Int) => Some(Kind::Int),
            (_, left, right) if left.is_number() && right.is_number() => Some(Kind::Decimal),
            (Operator::Add, Kind::Text, Kind::Text) => Some(Kind::Text),
            (Operator::Add, Kind::List(a), Kind::List(b)) => Some(Kind::List(Arc::new((**a).clone().or((**b).clone())))),
            (Operator::Add | Operator::Subtract, Kind::Timestamp, Kind::Duration) => Some(Kind::Timestamp),
            (Operator::Add, Kind::Duration, Kind::Timestamp) => Some(Kind::Timestamp),
            (Operator::Subtract, Kind::Timestamp, Kind::Timestamp) => Some(Kind::Duration),
            (Operator::Add | Operator::Subtract, Kind::Duration, Kind::Duration) => Some(Kind::Duration),
            _ => None,
        },
    }
}

// How messages call an operand: as written where it is a name with members.
fn label(tree: &IdedExpr) -> Box<str> {
    fn written(tree: &IdedExpr) -> Option<String> {
        match &tree.expr {
            Expr::Ident(name) => Some(name.clone()),
            Expr::Select(select) if !select.test => Some(format!("{}.{}", written(&select.operand)?, select.field)),
            Expr::Call(call) if call.func_name == operators::INDEX => Some(format!("{}[…]", written(call.args.first()?)?)),
            Expr::Call(call) if !call.func_name.contains('_') => Some(format!("{}(…)", call.func_name)),
            _ => None,
        }
    }
    written(tree).unwrap_or_else(|| "the value".to_owned()).into()
}

// ` ; is "x" meant?` or the names there are.
fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().min_by_key(|own| distance(name, own)).filter(|own| distance(name, own) <= 2.max(name.len() / 4));
    match near {
        Some(near) => format!("; is {near} meant?"),
        None if known.is_empty() => String::new(),
        None => format!("; there is {}", known.iter().take(40).copied().collect::<Vec<_>>().join(", ")),
    }
}

// Edits from one name to the other, in any case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
