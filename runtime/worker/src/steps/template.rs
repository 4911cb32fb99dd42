//! Bodies as text with expressions in it: `{{ x }}`, `{% for x in list %}`, `{% if x %}`. Values are escaped, so that none can break the text.

use autonomy_crds::Faults;
use autonomy_crds::micro_service::{BodyTemplate, TemplateEscape};

use crate::expression::{EvaluationError, Expression, Identity, Kind, Names, Value, compile};

// Blocks inside each other.
const MAX_DEPTH: usize = 16;
// What a template makes has this many bytes at the most.
const MAX_LENGTH: usize = 4 << 20;

/// A template, compiled.
#[derive(Debug)]
pub(super) struct Template {
    content_type: String,
    escape: TemplateEscape,
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Value(Expression),
    For { list: Expression, body: Vec<Node> },
    If(Vec<(Option<Expression>, Vec<Node>)>),
}

impl Template {
    /// Compiles a template whose expressions see `names`; after a fault what comes back is not whole.
    pub(super) fn compile(template: &BodyTemplate, names: &Names, path: &str, faults: &mut Faults) -> Option<Self> {
        let known = faults.0.len();
        let mut parser = Parser { rest: &template.text, line: 1, tag_lines: 0, names: names.clone(), path: format!("{path}.text"), faults };
        let (nodes, end) = parser.block(0);
        if let Some(tag) = end {
            parser.fault(format!("{{% {tag} %}} ends nothing that was begun"));
        }
        let media_type = template.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !media_type.contains('/') || reqwest::header::HeaderValue::from_str(&template.content_type).is_err() {
            faults.add(format!("{path}.contentType"), format!("{:?} is no media type, as application/xml is one", template.content_type));
        }
        let escape = template.escape.unwrap_or(match media_type.as_str() {
            "application/x-www-form-urlencoded" => TemplateEscape::Form,
            "application/xml" | "text/xml" | "text/html" => TemplateEscape::Xml,
            other if other.ends_with("+xml") => TemplateEscape::Xml,
            _ => TemplateEscape::None,
        });
        (faults.0.len() == known).then(|| Self { content_type: template.content_type.clone(), escape, nodes })
    }

    pub(super) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The text for these variables.
    ///
    /// # Errors
    /// When an expression can't be evaluated, or gives what can't be written.
    pub(super) fn write(&self, variables: &[Value], identity: &Identity<'_>) -> Result<String, EvaluationError> {
        let mut writing = Writing { variables: variables.to_vec(), identity, escape: self.escape, out: String::new() };
        writing.nodes(&self.nodes)?;
        Ok(writing.out)
    }
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    // The lines of the tag that was read last.
    tag_lines: usize,
    names: Names,
    path: String,
    faults: &'a mut Faults,
}

impl<'a> Parser<'a> {
    fn fault(&mut self, message: impl std::fmt::Display) {
        self.faults.add(&self.path, format!("line {}: {message}", self.line));
    }

    // Nodes up to a tag that ends or goes on with the block, which comes back.
    fn block(&mut self, depth: usize) -> (Vec<Node>, Option<&'a str>) {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            self.line += std::mem::take(&mut self.tag_lines);
            let begin = [self.rest.find("{{"), self.rest.find("{%")].into_iter().flatten().min();
            let (text, tagged) = self.rest.split_at(begin.unwrap_or(self.rest.len()));
            let is_tag = tagged.starts_with("{%");
            let Some(length) = (!tagged.is_empty()).then(|| inside(&tagged[2..], if is_tag { "%}" } else { "}}" })) else {
                self.pass(text);
                nodes.push(Node::Text(text.to_owned()));
                self.rest = "";
                break;
            };
            let Some(length) = length else {
                self.pass(text);
                self.fault(if is_tag { "a {% has no %}" } else { "a {{ has no }}" });
                self.rest = "";
                break;
            };
            let (content, behind) = (tagged[2..2 + length].trim(), &tagged[2 + length + 2..]);
            let (text, behind) = if is_tag { alone_on_its_line(text, behind) } else { (text, behind) };
            self.pass(text);
            if !text.is_empty() {
                nodes.push(Node::Text(text.to_owned()));
            }
            self.tag_lines = tagged[..tagged.len() - behind.len()].matches('\n').count();
            self.rest = behind;
            if !is_tag {
                nodes.extend(self.value(content));
            } else if matches!(content.split_whitespace().next(), Some("else" | "elif" | "endif" | "endfor")) {
                return (nodes, Some(content));
            } else {
                nodes.extend(self.tag(content, depth));
            }
        }
        self.line += std::mem::take(&mut self.tag_lines);
        (nodes, None)
    }

    fn pass(&mut self, text: &str) {
        self.line += text.matches('\n').count();
    }

    fn value(&mut self, source: &str) -> Option<Node> {
        let value = self.expression(source, None)?;
        if matches!(value.kind(), Kind::List(_) | Kind::Object(_)) {
            self.fault(format!("`{source}` is {}, which can't be written; go through it with {{% for %}}, or take a member", value.kind()));
        }
        Some(Node::Value(value))
    }

    fn expression(&mut self, source: &str, wanted: Option<&Kind>) -> Option<Expression> {
        let compiled = compile(source, &self.names, &self.path);
        let expression = compiled.map_err(|faults| faults.0.into_iter().for_each(|fault| self.fault(fault.message))).ok()?;
        if let Some(wanted) = wanted.filter(|wanted| !expression.may_be(wanted)) {
            self.fault(format!("{wanted} is expected, `{source}` gives {}", expression.kind()));
        }
        Some(expression)
    }

    fn tag(&mut self, content: &'a str, depth: usize) -> Option<Node> {
        if depth == MAX_DEPTH {
            self.fault(format!("blocks are inside each other {MAX_DEPTH} levels deep at the most"));
            self.rest = "";
            return None;
        }
        let (word, rest) = content.split_once(char::is_whitespace).unwrap_or((content, ""));
        match word {
            "for" => self.for_block(rest, depth),
            "if" => self.if_block(rest, depth),
            _ => {
                self.fault(format!("{{% {content} %}} is not known here; there are for, if, elif, else, endif and endfor"));
                None
            }
        }
    }

    fn for_block(&mut self, head: &str, depth: usize) -> Option<Node> {
        let Some((name, source)) = head.split_once(" in ").map(|(name, source)| (name.trim(), source.trim())) else {
            self.fault("a loop is written {% for x in list %}");
            return None;
        };
        if !(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())) {
            self.fault(format!("{name:?} is no name in camelCase"));
        }
        let list = self.expression(source, Some(&Kind::List(Kind::Any.into())));
        let item = match list.as_ref().map(Expression::kind) {
            Some(Kind::List(item)) => (**item).clone(),
            _ => Kind::Any,
        };
        let known = self.names.len();
        self.names.push(name, item);
        let (body, end) = self.block(depth + 1);
        self.names.truncate(known);
        if end != Some("endfor") {
            self.fault("a {% for %} has no {% endfor %}");
        }
        Some(Node::For { list: list?, body })
    }

    fn if_block(&mut self, head: &str, depth: usize) -> Option<Node> {
        let mut branches = Vec::new();
        let mut condition = self.expression(head, Some(&Kind::Bool)).map(Some);
        loop {
            let (body, end) = self.block(depth + 1);
            let is_last = matches!(condition, Some(None));
            branches.extend(condition.map(|condition| (condition, body)));
            match end {
                Some("endif") => return Some(Node::If(branches)),
                Some("else") if !is_last => condition = Some(None),
                Some(tag) if tag.starts_with("elif ") && !is_last => condition = self.expression(&tag[5..], Some(&Kind::Bool)).map(Some),
                _ => {
                    self.fault("an {% if %} has no {% endif %}");
                    return None;
                }
            }
        }
    }
}

// How many bytes there are up to `end`, which may stand in strings and brackets of the expression before.
fn inside(text: &str, end: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut place, mut depth) = (0, 0usize);
    while place < bytes.len() {
        if depth == 0 && text.as_bytes()[place..].starts_with(end.as_bytes()) {
            return Some(place);
        }
        match bytes[place] {
            quote @ (b'\'' | b'"') => {
                place += 1;
                while place < bytes.len() && bytes[place] != quote {
                    place += if bytes[place] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        place += 1;
    }
    None
}

// A tag that has a line to itself leaves no empty line.
fn alone_on_its_line<'t>(before: &'t str, behind: &'t str) -> (&'t str, &'t str) {
    let indented = before.trim_end_matches([' ', '\t']);
    let begins = indented.is_empty() || indented.ends_with('\n');
    let rest = behind.trim_start_matches([' ', '\t', '\r']);
    match rest.strip_prefix('\n') {
        Some(next) if begins => (indented, next),
        None if begins && rest.is_empty() => (indented, rest),
        _ => (before, behind),
    }
}

struct Writing<'a> {
    variables: Vec<Value>,
    identity: &'a Identity<'a>,
    escape: TemplateEscape,
    out: String,
}

impl Writing<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<(), EvaluationError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Value(expression) => self.value(expression)?,
                Node::For { list, body } => {
                    let items = match list.evaluate(&self.variables, self.identity)? {
                        Value::List(items) => items,
                        other => return Err(told(list, format!("a list is needed, not {}", other.kind()))),
                    };
                    for item in items.iter() {
                        self.variables.push(item.clone());
                        self.nodes(body)?;
                        self.variables.pop();
                    }
                }
                Node::If(branches) => {
                    for (condition, body) in branches {
                        let due = match condition {
                            Some(condition) => condition.evaluate_condition(&self.variables, self.identity)?,
                            None => true,
                        };
                        if due {
                            self.nodes(body)?;
                            break;
                        }
                    }
                }
            }
            if self.out.len() > MAX_LENGTH {
                return Err(EvaluationError::told(format!("the template makes more than {MAX_LENGTH} bytes")));
            }
        }
        Ok(())
    }

    fn value(&mut self, expression: &Expression) -> Result<(), EvaluationError> {
        let value = expression.evaluate(&self.variables, self.identity)?;
        if matches!(value, Value::List(_) | Value::Object(_)) {
            return Err(told(expression, format!("{} can't be written", value.kind())));
        }
        let text = value.to_plain_text();
        match self.escape {
            TemplateEscape::None => self.out.push_str(&text),
            TemplateEscape::Form => self.out.extend(url::form_urlencoded::byte_serialize(text.as_bytes())),
            TemplateEscape::Xml => {
                let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
                if let Some(bad) = bad {
                    return Err(told(expression, format!("the character {bad:?} can't be in XML")));
                }
                self.out.push_str(&quick_xml::escape::escape(&*text));
            }
        }
        Ok(())
    }
}

fn told(expression: &Expression, message: String) -> EvaluationError {
    EvaluationError::told(format!("{message} (in `{}`)", expression.source()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(content_type: &str, text: &str) -> Result<Template, String> {
        let mut names = Names::new();
        let line = Kind::object("a line", [("product", Kind::Text), ("amount", Kind::Decimal)]);
        names.add("sale", Kind::object("a sale", [("id", Kind::Text), ("lines", Kind::List(line.into()))]));
        let mut faults = Faults::default();
        let declared = BodyTemplate { content_type: content_type.to_owned(), text: text.to_owned(), escape: None };
        Template::compile(&declared, &names, "t", &mut faults).ok_or_else(|| faults.to_string())
    }

    fn written(content_type: &str, text: &str) -> Result<String, String> {
        let sale = r#"{"id": "<&'1' {{>", "lines": [{"product": "A\"B", "amount": 1.10}, {"product": null, "amount": 22}]}"#;
        let sale = Value::from_json(sale.as_bytes()).expect("JSON");
        template(content_type, text)?.write(&[sale], &Identity::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_escaped_and_blocks_leave_no_empty_lines() {
        let text = "\
<sale id=\"{{ sale.id }}\">
  {% for line in sale.lines %}
  <line>{{ line.product }}: {{ line.amount + 0.10 }}{% if line.amount > 2 %} much{% elif line.amount > 1.05 %} some{% else %} none{% endif %}</line>
  {% endfor %}
  {% if size(sale.lines) == 0 %}
  <none/>
  {% endif %}
</sale>";
        assert_eq!(
            written("application/soap+xml; charset=utf-8", text).expect("text"),
            "<sale id=\"&lt;&amp;&apos;1&apos; {{&gt;\">\n  <line>A&quot;B: 1.20 some</line>\n  <line>: 22.10 much</line>\n</sale>"
        );
        assert_eq!(
            written("application/x-www-form-urlencoded", "id={{ sale.id }}&n={{ {'a': {'b': 1}}.a.b }}").expect("text"),
            "id=%3C%26%271%27+%7B%7B%3E&n=1"
        );
        assert_eq!(written("text/plain", "{{ '}}' + \"{%\" }} {").expect("text"), "}}{% {");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("a\n{{ sale.di }}", "t.text: line 2: sale (a sale) has no member di; is id meant?"),
            ("{% for l in sale.lines %}\n{{ l.amuont }}{% endfor %}", "line 2: l (a line) has no member amuont"),
            ("{{ sale.lines }}", "line 1: `sale.lines` is a list, which can't be written"),
            ("{% for l in sale.id %}{% endfor %}", "a list is expected"),
            ("{% if sale.id %}{% endif %}", "a boolean is expected"),
            ("{% for l in sale.lines %}\n\n", "line 3: a {% for %} has no {% endfor %}"),
            ("{% if true %}{% endfor %}", "an {% if %} has no {% endif %}"),
            ("{% endif %}", "ends nothing that was begun"),
            ("{% unless x %}", "is not known here"),
            ("{{ sale.id", "a {{ has no }}"),
        ] {
            let faults = template("application/xml", text).expect_err(text);
            assert!(faults.contains(told), "{text}: {faults}");
        }
        assert!(template("xml", "x").is_err_and(|faults| faults.contains("t.contentType")));
        let sale = Value::from_json(b"{\"id\": \"\\u0001\"}").expect("JSON");
        let failed = template("text/xml", "{{ sale.id }}").expect("a template").write(&[sale], &Identity::default());
        assert!(failed.is_err_and(|error| error.to_string().contains("can't be in XML")));
    }
}
