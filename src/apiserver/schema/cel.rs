//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! The expressions are parsed and run by kube-cel; walking the object is ours, because what `oldSelf` is depends on
//! how old and new values correlate ([`super::correlate`]) and because the words of a refusal are kube-apiserver's.
//! Two things differ from it: expressions are not type-checked when a definition is created, and running them has
//! no cost budget.

use super::cause::Cause;
use super::cel_value;
use super::correlate::Old;
use super::node::{Additional, Node};
use kube_cel::cel::objects::{OptionalValue, Value as CelValue};
use kube_cel::cel::{Context, ExecutionError};
use kube_cel::{CompilationError, CompilationResult, KubeCelExt, compile_schema};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Longest message that a `messageExpression` may produce, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// One rule of a schema node.
pub(super) struct Rule {
    compiled: CompilationResult,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.compiled.rule.rule).finish()
    }
}

impl Rule {
    /// Compiles a rule that [`mistakes`] has found nothing wrong with.
    pub(super) fn compile(raw: &Value) -> Option<Self> {
        compile(raw)?.ok().map(|compiled| Self { compiled })
    }
}

fn compile(raw: &Value) -> Option<Result<CompilationResult, CompilationError>> {
    compile_schema(&json!({ "x-kubernetes-validations": [raw] })).validations.into_iter().next()
}

/// What is wrong with a rule as written, for the author of a definition.
pub(super) fn mistakes(raw: &Value, path: &str) -> Option<Cause> {
    let error = compile(raw)?.err()?;
    let (field, detail) = match &error {
        CompilationError::MessageExpressionParse { source, .. } => {
            ("messageExpression", format!("compilation failed: {source}"))
        }
        CompilationError::Parse { source, .. } => ("rule", format!("compilation failed: {source}")),
        other => ("rule", format!("compilation failed: {other}")),
    };
    Some(Cause::invalid(format!("{path}.{field}"), raw, &detail))
}

thread_local! {
    /// Registering all functions is costly, and a context may not be shared between threads.
    static FUNCTIONS: Context<'static> = Context::default().with_all();
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
        let old_self = old.map(|old| convert(old.value)).filter(|old| !matches!(old, CelValue::Null));
        let mut scope = self.functions.new_inner_scope();
        scope.add_variable_from_value("self", convert(value));
        for rule in &node.rules {
            let optional = rule.compiled.rule.optional_old_self == Some(true);
            let mut scope = scope.new_inner_scope();
            match (&old_self, optional) {
                (old, true) => {
                    let value = old.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                    scope.add_variable_from_value("oldSelf", CelValue::Opaque(Arc::new(value)));
                }
                (Some(old), false) => scope.add_variable_from_value("oldSelf", old.clone()),
                // A transition rule says nothing about a value that comes from no other.
                (None, false) if rule.compiled.is_transition_rule => continue,
                (None, false) => {}
            }
            if let Some(cause) = judge(rule, &scope, node, path) {
                let forgiven = !rule.compiled.is_transition_rule && ratchet.is_unchanged(value);
                if !forgiven {
                    self.causes.push(cause);
                }
            }
        }
    }
}

/// Runs one rule; the cause if it does not hold.
fn judge(rule: &Rule, scope: &Context<'_>, node: &Node, path: &str) -> Option<Cause> {
    let raw = &rule.compiled.rule;
    let stated = raw.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let in_words = stated.unwrap_or(raw.rule.trim());
    // kube-apiserver shows the type where other errors show the value, which may be large.
    let shown = if node.int_or_string { String::new() } else { node.type_names() };
    let shown = Value::from(shown);
    match rule.compiled.program.execute(scope) {
        Ok(CelValue::Bool(true)) => None,
        Ok(_) => {
            let message = dynamic_message(rule, scope)
                .or_else(|| stated.map(str::to_owned))
                .unwrap_or_else(|| format!("failed rule: {}", raw.rule.trim()));
            let field = match raw.field_path.as_deref().map(|path| path.trim().trim_start_matches('.')) {
                None | Some("") => path.to_owned(),
                Some(below) if path.is_empty() => below.to_owned(),
                Some(below) => format!("{path}.{below}"),
            };
            Some(match raw.reason.as_deref() {
                Some("FieldValueForbidden") => Cause::forbidden(field, &message),
                Some("FieldValueRequired") => Cause::required(field, &message),
                Some("FieldValueDuplicate") => Cause::duplicate(field, &shown),
                _ => Cause::invalid(field, &shown, &message),
            })
        }
        Err(ExecutionError::NoSuchOverload) => {
            let detail = format!(
                "'no such overload': call arguments did not match a supported operator, function or macro signature \
                 for rule: {in_words}"
            );
            Some(Cause::invalid(path, &shown, &detail))
        }
        Err(error) => {
            let mut text = error.to_string();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            Some(Cause::invalid(path, &shown, &format!("{text} evaluating rule: {in_words}")))
        }
    }
}

/// What `messageExpression` says, unless it fails or says something unusable.
fn dynamic_message(rule: &Rule, scope: &Context<'_>) -> Option<String> {
    let program = rule.compiled.message_program.as_ref()?;
    let Ok(CelValue::String(message)) = program.execute(scope) else { return None };
    let message = message.trim();
    let usable = !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n');
    usable.then(|| message.to_owned())
}
