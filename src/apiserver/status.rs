//! The errors clients see: `Status` objects worded as kube-apiserver words them, because kubectl prints the text
//! and clients decide by the reason.

use serde_json::{Map, Value, json};

use crate::schema::Cause;
use crate::store::{ListError, StoreError};

/// Group and plural name of a resource, as error texts need them.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural name, such as `configmaps`; for `Invalid` the kind.
    pub resource: &'a str,
}

impl Named<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: &'static str,
    /// What kubectl prints.
    pub message: String,
    /// `details` of the `Status`.
    pub details: Option<Map<String, Value>>,
    /// Seconds for the header `Retry-After`.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None }
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Nothing is served at this path.
    pub fn no_path() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource");
        error.details = Some(Map::new());
        error
    }

    /// The path exists, the method does not.
    pub fn no_method() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(Map::new());
        error
    }

    /// The object does not exist.
    pub fn not_found(named: Named<'_>, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", named.qualified())).about(named, name)
    }

    /// The object exists already.
    pub fn already_exists(named: Named<'_>, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", named.qualified()))
            .about(named, name)
    }

    /// The object was changed meanwhile, or a precondition does not hold.
    pub fn conflict(named: Named<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", named.qualified());
        Self::new(409, "Conflict", message).about(named, name)
    }

    /// The caller may not do this.
    pub fn forbidden(named: Named<'_>, name: &str, why: &str) -> Self {
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = if named.resource.is_empty() {
            format!("forbidden: {why}")
        } else {
            format!("{}{quoted} is forbidden: {why}", named.qualified())
        };
        Self::new(403, "Forbidden", message).about(named, name)
    }

    /// The object breaks rules. `named.resource` is the kind.
    pub fn invalid(named: Named<'_>, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {text}", named.qualified());
        let mut error = Self::new(422, "Invalid", message).about(named, name);
        let causes: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason.as_str(), "message": c.message, "field": c.field}))
            .collect();
        error.details.get_or_insert_default().insert("causes".into(), causes.into());
        error
    }

    /// The revision asked for is older than the history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The revision asked for lies in the future.
    pub fn too_large(asked: u64, current: u64) -> Self {
        let mut error = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        error.details = Some(Map::from_iter([
            ("causes".to_owned(), json!([cause])),
            ("retryAfterSeconds".to_owned(), json!(1)),
        ]));
        error.retry_after = Some(1);
        error
    }

    /// An option in the query or in a body of options has an unusable value. `kind` is the kind of the options.
    pub fn invalid_option(kind: &str, cause: Cause) -> Self {
        Self::invalid(Named { group: "meta.k8s.io", resource: kind }, "", &[cause])
    }

    /// The body is in a form that is not understood.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// An error of the store about an object of `named`.
    pub fn from_store(error: StoreError, named: Named<'_>) -> Self {
        match error {
            StoreError::NoResource(_) => Self::no_path(),
            StoreError::NotFound(key) => Self::not_found(named, &key.name),
            StoreError::AlreadyExists(key) => Self::already_exists(named, &key.name),
            StoreError::Conflict(key) => Self::conflict(
                named,
                &key.name,
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            StoreError::Precondition(why) => Self::conflict(named, "", &why),
            StoreError::NamespaceMissing(name) => {
                Self::not_found(Named { group: "", resource: "namespaces" }, &name)
            }
            StoreError::NamespaceTerminating(namespace) => {
                let why = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                let mut error = Self::forbidden(named, "", &why);
                let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                    "message": format!("namespace {namespace} is being terminated")});
                error.details.get_or_insert_default().insert("causes".into(), json!([cause]));
                error
            }
        }
    }

    /// An error of reading a list.
    pub fn from_list(error: ListError, continued: bool, asked: u64) -> Self {
        match error {
            ListError::NoResource => Self::no_path(),
            ListError::Gone(_) if continued => Self::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a \
                 new list without the continue parameter.",
            ),
            ListError::Gone(gone) => {
                Self::expired(format!("too old resource version: {} ({})", gone.asked, gone.floor))
            }
            ListError::TooLarge { current } => Self::too_large(asked, current),
        }
    }

    /// Says which object it is about.
    #[must_use]
    pub fn about(mut self, named: Named<'_>, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        for (key, text) in [("name", name), ("group", named.group), ("kind", named.resource)] {
            if !text.is_empty() {
                details.insert(key.into(), text.into());
            }
        }
        self
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = Value::Object(details.clone());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: Named<'_> = Named { group: "avapigw.io", resource: "apiroutes" };

    #[test]
    fn texts_are_those_that_kubectl_users_know() {
        assert_eq!(ApiError::not_found(ROUTES, "a").message, r#"apiroutes.avapigw.io "a" not found"#);
        let core = Named { group: "", resource: "configmaps" };
        assert_eq!(ApiError::already_exists(core, "a").message, r#"configmaps "a" already exists"#);
        let kind = Named { group: "avapigw.io", resource: "APIRoute" };
        let one = [Cause::required("spec.match", "")];
        assert_eq!(
            ApiError::invalid(kind, "a", &one).message,
            r#"APIRoute.avapigw.io "a" is invalid: spec.match: Required value"#
        );
    }

    #[test]
    fn a_status_names_the_object_and_the_causes() {
        let kind = Named { group: "avapigw.io", resource: "APIRoute" };
        let status =
            ApiError::invalid(kind, "a", &[Cause::invalid("spec.n", &json!(3), "too large")]).to_value();
        assert_eq!(status["code"], 422);
        assert_eq!(
            status["details"],
            json!({"name": "a", "group": "avapigw.io", "kind": "APIRoute", "causes": [
                {"reason": "FieldValueInvalid", "field": "spec.n", "message": "Invalid value: 3: too large"}]})
        );
    }
}
