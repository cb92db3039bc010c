//! What is served: the built-in resources and those that custom resource definitions add.
//!
//! A registry is immutable; a change of a definition makes a new one, so that a request works with one state
//! from beginning to end.

mod builtin;
mod convert;
mod crd;
mod defaults;
mod event;
mod meta;
mod names;
mod shape;
mod strategy;
mod validation;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use builtin::{Builtin, INITIAL_NAMESPACES, namespace};
pub use convert::convert;
pub use crd::accept_definition;
pub use meta::metadata_only;
pub use strategy::{Decoded, Fresh, Target, decode, prepare_create, prepare_update, read_fields};

use crate::schema::StructuralSchema;
use crate::status::Named;
use crate::store::{Layout, ResourceId};

/// One served resource, in all its versions.
#[derive(Debug)]
pub struct Resource {
    /// Its name in the store.
    pub id: ResourceId,
    /// API group, empty for core.
    pub group: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind of an object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories for kubectl.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `metadata.generation` counts changes.
    pub generation: bool,
    /// Whether an update needs the revision it is based on.
    pub needs_revision: bool,
    /// Whether an update creates an object that is not there.
    pub create_on_update: bool,
    /// All versions, the preferred one first.
    pub versions: Vec<Version>,
    /// Which of `versions` objects are stored in.
    pub storage: usize,
    /// Which built-in it is; `None` for custom resources.
    pub builtin: Option<Builtin>,
}

/// One version of a resource.
#[derive(Debug)]
pub struct Version {
    /// Its name, such as `v1alpha1`.
    pub name: String,
    /// Whether it is served.
    pub served: bool,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// The schema objects are held against, if there is one.
    pub schema: Option<StructuralSchema>,
    /// The schema as it was written, for OpenAPI documents.
    pub openapi: Value,
    /// `additionalPrinterColumns` as written.
    pub columns: Vec<Value>,
    /// `selectableFields`, without the leading dot.
    pub selectable: Vec<String>,
    /// What users of a deprecated version are told.
    pub deprecation: Option<String>,
}

impl Resource {
    /// Group and plural name for error texts.
    pub fn named(&self) -> Named<'_> {
        Named { group: &self.group, resource: &self.plural }
    }

    /// Group and kind for error texts about invalid content.
    pub fn named_kind(&self) -> Named<'_> {
        Named { group: &self.group, resource: &self.kind }
    }

    /// How the store keeps it.
    pub fn layout(&self) -> Layout {
        Layout { namespaced: self.namespaced, generation: self.generation }
    }

    /// `apiVersion` of objects in a version.
    pub fn api_version(&self, version: usize) -> String {
        api_version(&self.group, &self.versions[version].name)
    }
}

/// `apiVersion` for a group and a version.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Everything that is served at one moment.
#[derive(Debug, Default)]
pub struct Registry {
    /// Keyed by group and plural name.
    resources: BTreeMap<(String, String), Arc<Resource>>,
}

impl Registry {
    /// The built-in resources.
    pub fn builtin() -> Self {
        let resources = builtin::resources().into_iter();
        Self { resources: resources.map(|r| ((r.group.clone(), r.plural.clone()), Arc::new(r))).collect() }
    }

    /// This registry with `resource` added or replaced.
    pub fn with(&self, resource: Resource) -> Self {
        let mut resources = self.resources.clone();
        resources.insert((resource.group.clone(), resource.plural.clone()), Arc::new(resource));
        Self { resources }
    }

    /// This registry without the custom resource of a definition's name.
    pub fn without(&self, definition: &str) -> Self {
        let mut resources = self.resources.clone();
        resources.retain(|_, resource| resource.builtin.is_some() || *resource.id != *definition);
        Self { resources }
    }

    /// The resource served at a group, version and plural name, and the index of the version.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<(Arc<Resource>, usize)> {
        let resource = self.resources.get(&(group.to_owned(), plural.to_owned()))?;
        let at = resource.versions.iter().position(|known| known.name == version && known.served)?;
        Some((resource.clone(), at))
    }

    /// Whether a group and version holds built-in resources.
    pub fn has_builtin(&self, group: &str, version: &str) -> bool {
        self.resources.values().any(|resource| {
            resource.builtin.is_some()
                && resource.group == group
                && resource.versions.iter().any(|known| known.name == version)
        })
    }

    /// All resources, by group and plural name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The custom resource of a definition's name.
    pub fn custom(&self, definition: &str) -> Option<&Arc<Resource>> {
        self.resources.values().find(|resource| resource.builtin.is_none() && *resource.id == *definition)
    }

    /// The groups, and in each the served versions, preferred first.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.resources.values() {
            let versions = groups.entry(&resource.group).or_default();
            for version in resource.versions.iter().filter(|version| version.served) {
                if !versions.contains(&version.name.as_str()) {
                    versions.push(&version.name);
                }
            }
        }
        groups
            .values_mut()
            .for_each(|versions| versions.sort_by_key(|name| std::cmp::Reverse(names::version_rank(name))));
        // Virtual resources have groups of their own.
        groups.entry("authorization.k8s.io").or_insert_with(|| vec!["v1"]);
        groups.entry("authentication.k8s.io").or_insert_with(|| vec!["v1"]);
        groups.retain(|_, versions| !versions.is_empty());
        groups
    }
}
