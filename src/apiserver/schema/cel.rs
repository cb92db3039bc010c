//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! The expressions are parsed and run by kube-cel; walking the object is ours, because what `oldSelf` is depends on
//! how old and new values correlate ([`super::correlate`]) and because the words of a refusal are kube-apiserver's.
//! Three things differ from it: expressions are not type-checked when a definition is created, running them has no
//! cost budget, and optional selection (`self.?x`) is refused.

use super::cause::Cause;
use super::cel_value;
use super::correlate::Old;
use super::node::{Additional, Node};
use kube_cel::cel::objects::{OptionalValue, Value as CelValue};
use kube_cel::cel::parser::{Expression, ParseErrors, Parser};
use kube_cel::cel::{Context, ExecutionError};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Longest message that a `messageExpression` may produce, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// A rule as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    rule: String,
    message: String,
    message_expression: String,
    reason: String,
    field_path: String,
    optional_old_self: bool,
}

/// One rule of a schema node.
#[derive(Debug)]
pub(super) struct Rule {
    raw: Raw,
    expression: Expression,
    message: Option<Expression>,
    uses_old_self: bool,
}

impl Rule {
    /// Compiles a rule that [`mistakes`] has found nothing wrong with.
    pub(super) fn compile(raw: &Value) -> Option<Self> {
        let raw = Raw::deserialize(raw).ok()?;
        let expression = parse(&raw.rule).ok()?;
        let message = Some(raw.message_expression.trim()).filter(|text| !text.is_empty());
        let message = message.and_then(|text| parse(text).ok());
        let uses_old_self = expression.references().has_variable("oldSelf");
        Some(Self { raw, expression, message, uses_old_self })
    }
}

/// Optional selection (`self.?x`) is refused, because the engine fails on exactly the fields that are missing: better
/// the author of a definition learns it than every user of it.
fn parse(expression: &str) -> Result<Expression, ParseErrors> {
    Parser::default().parse(expression)
}

/// What is wrong with a rule as written, for the author of a definition.
pub(super) fn mistakes(raw: &Value, path: &str) -> Option<Cause> {
    let rule = match Raw::deserialize(raw) {
        Ok(rule) => rule,
        Err(error) => return Some(Cause::invalid(path, raw, &error.to_string())),
    };
    let message = rule.message_expression.trim();
    let (field, error) = match (parse(&rule.rule), message) {
        (Err(error), _) => ("rule", error),
        (Ok(_), "") => return None,
        (Ok(_), message) => ("messageExpression", parse(message).err()?),
    };
    Some(Cause::invalid(format!("{path}.{field}"), raw, &format!("compilation failed: {error}")))
}

/// A `fieldPath` such as `.spec.x`, `['a-b']` or `.m['key']` as it stands in causes, `.spec.x`, `.a-b` or `.m[key]`;
/// `None` when it leads to no field that the schema declares.
pub(super) fn field_path(node: &Node, path: &str) -> Option<String> {
    let mut node = node;
    let mut rest = path.trim();
    let mut out = String::new();
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            (name, rest) = after.split_once("']")?;
        } else {
            let after = rest.strip_prefix('.')?;
            (name, rest) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
        }
        match (node.properties.get(name), &node.additional) {
            (Some(property), _) => {
                out.push_str(&format!(".{name}"));
                node = property;
            }
            (None, Additional::Schema(values)) => {
                out.push_str(&format!("[{name}]"));
                node = values;
            }
            (None, Additional::Unset | Additional::Any | Additional::Denied) => return None,
        }
    }
    Some(out)
}

thread_local! {
    /// Registering all functions is costly, and a context may not be shared between threads.
    static FUNCTIONS: Context<'static> = cel_value::functions();
}

/// Runs all rules of a resource's schema. `root` is the schema's root.
pub(super) fn check(object: &Value, root: &Node, old: Option<Old<'_>>) -> Vec<Cause> {
    if !has_rules(root) {
        return Vec::new();
    }
    FUNCTIONS.with(|functions| {
        let mut causes = Vec::new();
        let ratchet = Ratchet { current: old, nearest: None };
        Walk { functions, causes: &mut causes }.value(object, root, old, ratchet, "");
        causes
    })
}

/// Whether any rule stands in a schema.
pub(super) fn has_rules(node: &Node) -> bool {
    !node.rules.is_empty()
        || node.properties.values().any(has_rules)
        || node.items.as_deref().is_some_and(has_rules)
        || matches!(&node.additional, Additional::Schema(values) if has_rules(values))
}

/// What an unchanged value is compared with: itself, or the nearest value above it that correlates.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    current: Option<Old<'a>>,
    nearest: Option<(Old<'a>, &'a Value)>,
}

impl<'a> Ratchet<'a> {
    fn below(self, value: &'a Value, child: Option<Old<'a>>) -> Self {
        let nearest = self.current.map(|old| (old, value)).or(self.nearest);
        Self { current: child, nearest }
    }

    fn is_unchanged(self, value: &Value) -> bool {
        match (self.current, self.nearest) {
            (Some(old), _) => old.equals(value),
            (None, Some((old, ancestor))) => old.equals(ancestor),
            (None, None) => false,
        }
    }
}

struct Walk<'a> {
    functions: &'a Context<'static>,
    causes: &'a mut Vec<Cause>,
}

impl Walk<'_> {
    /// `old` is what `oldSelf` is; `ratchet` is what decides whether an unchanged mistake is forgiven.
    fn value<'v>(
        &mut self,
        value: &'v Value,
        node: &Node,
        old: Option<Old<'v>>,
        ratchet: Ratchet<'v>,
        path: &str,
    ) {
        if value.is_null() {
            return;
        }
        self.rules(value, node, old, ratchet, path);
        match value {
            Value::Array(items) => {
                let Some(item_node) = node.items.as_deref().filter(|node| has_rules(node)) else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| old.item(item));
                    let ratchet = ratchet.below(value, old);
                    self.value(item, item_node, old, ratchet, &format!("{path}[{index}]"));
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    let (field_node, below) = match (node.properties.get(name), &node.additional) {
                        (Some(property), _) if path.is_empty() => (property, name.clone()),
                        (Some(property), _) => (property, format!("{path}.{name}")),
                        (None, Additional::Schema(values)) => (&**values, format!("{path}[{name}]")),
                        (None, Additional::Unset | Additional::Any | Additional::Denied) => continue,
                    };
                    if has_rules(field_node) {
                        let old = old.and_then(|old| old.field(name));
                        self.value(field, field_node, old, ratchet.below(value, old), &below);
                    }
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, value: &Value, node: &Node, old: Option<Old<'_>>, ratchet: Ratchet<'_>, path: &str) {
        if node.rules.is_empty() {
            return;
        }
        let convert = |value: &Value| {
            if path.is_empty() {
                cel_value::convert_root(value, node, self.functions)
            } else {
                cel_value::convert(value, Some(node), self.functions)
            }
        };
        let old_self = old.filter(|old| !old.value.is_null()).map(|old| convert(&old.aligned(value)));
        let mut scope = self.functions.new_inner_scope();
        scope.add_variable_from_value("self", convert(value));
        for rule in &node.rules {
            let mut scope = scope.new_inner_scope();
            match (&old_self, rule.raw.optional_old_self) {
                (old, true) => {
                    let value = old.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                    scope.add_variable_from_value("oldSelf", CelValue::Opaque(Arc::new(value)));
                }
                (Some(old), false) => scope.add_variable_from_value("oldSelf", old.clone()),
                // A transition rule says nothing about a value that comes from no other.
                (None, false) if rule.uses_old_self => continue,
                (None, false) => {}
            }
            match judge(rule, &scope, node, path) {
                Verdict::Holds => {}
                Verdict::Broken(_) if !rule.uses_old_self && ratchet.is_unchanged(value) => {}
                Verdict::Broken(cause) | Verdict::Failed(cause) => self.causes.push(cause),
            }
        }
    }
}

/// What came of running a rule.
enum Verdict {
    Holds,
    /// It does not hold, which is forgiven for a value that has not changed.
    Broken(Cause),
    /// It could not be run to its end, which is never forgiven.
    Failed(Cause),
}

fn judge(rule: &Rule, scope: &Context<'_>, node: &Node, path: &str) -> Verdict {
    let raw = &rule.raw;
    let stated = Some(raw.message.trim()).filter(|message| !message.is_empty());
    let in_words = stated.unwrap_or(raw.rule.trim());
    // kube-apiserver shows the type where other errors show the value, which may be large.
    let shown = if node.int_or_string { String::new() } else { node.type_names() };
    let shown = Value::from(shown);
    match CelValue::resolve(&rule.expression, scope) {
        Ok(CelValue::Bool(true)) => Verdict::Holds,
        Ok(_) => {
            let message = dynamic_message(rule, scope)
                .or_else(|| stated.map(str::to_owned))
                .unwrap_or_else(|| format!("failed rule: {}", raw.rule.trim()));
            let below = field_path(node, &raw.field_path).unwrap_or_default();
            let field = format!("{path}{below}");
            let field = if path.is_empty() { field.trim_start_matches('.') } else { &field };
            Verdict::Broken(match raw.reason.as_str() {
                "FieldValueForbidden" => Cause::forbidden(field, &message),
                "FieldValueRequired" => Cause::required(field, &message),
                "FieldValueDuplicate" => Cause::duplicate(field, &shown),
                _ => Cause::invalid(field, &shown, &message),
            })
        }
        Err(ExecutionError::NoSuchOverload) => {
            let detail = format!(
                "'no such overload': call arguments did not match a supported operator, function or macro signature \
                 for rule: {in_words}"
            );
            Verdict::Failed(Cause::invalid(path, &shown, &detail))
        }
        Err(error) => {
            let detail = format!("{} evaluating rule: {in_words}", words(&error));
            Verdict::Failed(Cause::invalid(path, &shown, &detail))
        }
    }
}

/// An error of a running rule, in the words of cel-go where they differ.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(CelValue::Int(index)) => format!("index out of bounds: {index}"),
        other => {
            let mut text = other.to_string();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            text
        }
    }
}

/// What `messageExpression` says, unless it fails or says something unusable.
fn dynamic_message(rule: &Rule, scope: &Context<'_>) -> Option<String> {
    let Ok(CelValue::String(message)) = CelValue::resolve(rule.message.as_ref()?, scope) else { return None };
    let message = message.trim();
    let usable = !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n');
    usable.then(|| message.to_owned())
}
