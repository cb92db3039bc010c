//! What an ABAC expression can name: the variables and functions that gateways
//! declare, and those of CEL itself.

/// A declared variable that has neither fields nor elements.
pub(super) struct Plain {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
}

/// What a name that is no comprehension's variable stands for.
pub(super) enum Meaning {
    /// A map of unknown values, or a type.
    Open,
    /// Something whose fields nobody can ask for.
    Plain(&'static Plain),
}

/// The declared variables and the names of types.
pub(super) fn variable(name: &str) -> Option<Meaning> {
    Some(match name {
        "subject" | "request" | "environment" => Meaning::Open,
        "resource" => Meaning::Plain(&Plain { name: "resource", kind: "string" }),
        "action" => Meaning::Plain(&Plain { name: "action", kind: "string" }),
        "now" => Meaning::Plain(&Plain { name: "now", kind: "timestamp" }),
        "bool" | "bytes" | "double" | "int" | "list" | "map" | "null_type" | "string" | "type" | "uint" => {
            Meaning::Open
        }
        _ => return None,
    })
}

/// The types of `google.protobuf` that cel-go knows by themselves.
pub(super) fn is_well_known(name: &str) -> bool {
    matches!(
        name,
        "Any"
            | "BoolValue"
            | "BytesValue"
            | "DoubleValue"
            | "Duration"
            | "Empty"
            | "FloatValue"
            | "Int32Value"
            | "Int64Value"
            | "ListValue"
            | "StringValue"
            | "Struct"
            | "Timestamp"
            | "UInt32Value"
            | "UInt64Value"
            | "Value"
    )
}

/// How a function can be called.
pub(super) struct Function {
    /// Numbers of arguments in `f(…)`.
    pub(super) alone: &'static [usize],
    /// Numbers of arguments in `x.f(…)`.
    pub(super) on_value: &'static [usize],
    /// The same for people.
    pub(super) usage: &'static str,
}

const fn function(alone: &'static [usize], on_value: &'static [usize], usage: &'static str) -> Function {
    Function { alone, on_value, usage }
}

/// The functions that gateways declare, and those of the standard library.
pub(super) fn called(name: &str) -> Option<Function> {
    Some(match name {
        "ip_in_range" => function(&[2], &[], "ip_in_range(ip, cidr)"),
        "has_role" => function(&[1], &[], "has_role(role)"),
        "size" => function(&[1], &[0], "size(x) or x.size()"),
        "matches" => function(&[2], &[1], "text.matches(regex) or matches(text, regex)"),
        "contains" => function(&[], &[1], "text.contains(part)"),
        "startsWith" => function(&[], &[1], "text.startsWith(prefix)"),
        "endsWith" => function(&[], &[1], "text.endsWith(suffix)"),
        "getDate" => function(&[], &[0, 1], "time.getDate() or time.getDate(zone)"),
        "getDayOfMonth" => function(&[], &[0, 1], "time.getDayOfMonth() or time.getDayOfMonth(zone)"),
        "getDayOfWeek" => function(&[], &[0, 1], "time.getDayOfWeek() or time.getDayOfWeek(zone)"),
        "getDayOfYear" => function(&[], &[0, 1], "time.getDayOfYear() or time.getDayOfYear(zone)"),
        "getFullYear" => function(&[], &[0, 1], "time.getFullYear() or time.getFullYear(zone)"),
        "getHours" => function(&[], &[0, 1], "time.getHours() or time.getHours(zone)"),
        "getMilliseconds" => function(&[], &[0, 1], "time.getMilliseconds() or time.getMilliseconds(zone)"),
        "getMinutes" => function(&[], &[0, 1], "time.getMinutes() or time.getMinutes(zone)"),
        "getMonth" => function(&[], &[0, 1], "time.getMonth() or time.getMonth(zone)"),
        "getSeconds" => function(&[], &[0, 1], "time.getSeconds() or time.getSeconds(zone)"),
        "bool" => function(&[1], &[], "bool(x)"),
        "bytes" => function(&[1], &[], "bytes(x)"),
        "double" => function(&[1], &[], "double(x)"),
        "duration" => function(&[1], &[], "duration(\"1h30m\")"),
        "dyn" => function(&[1], &[], "dyn(x)"),
        "int" => function(&[1], &[], "int(x)"),
        "string" => function(&[1], &[], "string(x)"),
        "timestamp" => function(&[1], &[], "timestamp(\"2026-01-01T00:00:00Z\")"),
        "type" => function(&[1], &[], "type(x)"),
        "uint" => function(&[1], &[], "uint(x)"),
        "has" => function(&[1], &[], "has(x.field)"),
        _ => return None,
    })
}

/// A macro that names the elements of a list or the keys of a map.
#[derive(Clone, Copy)]
pub(super) struct Comprehension {
    pub(super) name: &'static str,
    /// Numbers of arguments, the name of the elements among them.
    pub(super) arguments: &'static [usize],
    /// The same for people.
    pub(super) usage: &'static str,
}

/// The macros that are called on a value.
pub(super) fn comprehension(name: &str) -> Option<Comprehension> {
    const ALL: [Comprehension; 5] = [
        Comprehension { name: "all", arguments: &[2], usage: "list.all(x, condition)" },
        Comprehension { name: "exists", arguments: &[2], usage: "list.exists(x, condition)" },
        Comprehension { name: "exists_one", arguments: &[2], usage: "list.exists_one(x, condition)" },
        Comprehension { name: "filter", arguments: &[2], usage: "list.filter(x, condition)" },
        Comprehension {
            name: "map",
            arguments: &[2, 3],
            usage: "list.map(x, value) or list.map(x, condition, value)",
        },
    ];
    ALL.into_iter().find(|one| one.name == name)
}

/// Words that are neither variables nor functions. They may be names of fields.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "as" | "break"
            | "const"
            | "continue"
            | "else"
            | "for"
            | "function"
            | "if"
            | "import"
            | "let"
            | "loop"
            | "package"
            | "namespace"
            | "return"
            | "var"
            | "void"
            | "while"
    )
}

/// What comprehensions call their result, which their elements must not be called.
pub(super) const ACCUMULATOR: &str = "__result__";

/// Words of the grammar, which are not even names of fields.
pub(super) fn is_keyword(name: &str) -> bool {
    matches!(name, "in" | "true" | "false" | "null")
}
