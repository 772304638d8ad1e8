//! The schemas of Kubernetes' own types, as an API server serves them for its own kinds.
//!
//! The `JsonSchema` of k8s-openapi lacks what the OpenAPI document of Kubernetes says beside the types. The tables here
//! put it back; they are read off `api/openapi-spec/swagger.json` of k8s.io/kubernetes v1.37.2, for all types that can be
//! reached from JobSpec. A list that is in no table is atomic there, which is what the absence of a list type means in
//! a CRD.
//!
//! Left out on purpose: `ports`, `env`, `hostAliases` and `imagePullSecrets` are maps there, but of a Job two entries with
//! the same key are taken all the same, and in a CRD they would be refused. So these lists are atomic here: generated
//! manifests do have them, the order of `env` counts (`$(NAME)` sees what stands before it), and `ports` would need a
//! default, which is drift to GitOps tools.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::for_each_schema;

/// (type, list, keys): `x-kubernetes-list-type: map`. The items are owned one by one under server-side apply, and two
/// with the same keys are refused when the manifest is applied.
const MAP_LISTS: &[(&str, &str, &[&str])] = &[
    ("core.v1.Container", "volumeDevices", &["devicePath"]),
    ("core.v1.Container", "volumeMounts", &["mountPath"]),
    ("core.v1.EphemeralContainer", "volumeDevices", &["devicePath"]),
    ("core.v1.EphemeralContainer", "volumeMounts", &["mountPath"]),
    ("core.v1.PodSpec", "containers", &["name"]),
    ("core.v1.PodSpec", "ephemeralContainers", &["name"]),
    ("core.v1.PodSpec", "evictionResponders", &["name"]),
    ("core.v1.PodSpec", "initContainers", &["name"]),
    ("core.v1.PodSpec", "resourceClaims", &["name"]),
    ("core.v1.PodSpec", "schedulingGates", &["name"]),
    ("core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("core.v1.PodSpec", "volumes", &["name"]),
    ("core.v1.ResourceRequirements", "claims", &["name"]),
];

/// (type, list): `x-kubernetes-list-type: set`.
const SET_LISTS: &[(&str, &str)] = &[
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values"),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values"),
    ("core.v1.VolumeMount", "bindMountOptions"),
    ("meta.v1.ObjectMeta", "finalizers"),
];

/// `x-kubernetes-map-type: atomic`: two writers must not merge halves of a selector or of a reference.
const ATOMIC_TYPES: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.EvictionResponder",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.TypedLocalObjectReference",
    "meta.v1.LabelSelector",
];

/// (type, map): the same for a map that is a field.
const ATOMIC_MAPS: &[(&str, &str)] = &[("core.v1.PodSpec", "nodeSelector")];

/// Types whose `name` k8s-openapi requires and Kubernetes does not: there it has the default "".
const NAME_IS_OPTIONAL: &[&str] = &[
    "core.v1.ConfigMapEnvSource",
    "core.v1.ConfigMapKeySelector",
    "core.v1.ConfigMapProjection",
    "core.v1.ConfigMapVolumeSource",
    "core.v1.LocalObjectReference",
    "core.v1.SecretEnvSource",
    "core.v1.SecretKeySelector",
    "core.v1.SecretProjection",
];

/// What remains of the metadata of a template: what is copied to the pods (labels, annotations, finalizers), and what
/// manifests commonly have, written by hand or by tools, and a strict client would otherwise refuse as unknown.
const TEMPLATE_METADATA: &[&str] =
    &["annotations", "creationTimestamp", "finalizers", "generateName", "labels", "name", "namespace"];

/// As controller-gen writes it for `resource.Quantity`: a number and a suffix.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The schema of a Kubernetes type without descriptions: those of the pod template alone weigh 270 kB, and plain
/// `kubectl apply` keeps the whole manifest in an annotation of at most 262,144 bytes.
pub fn bare<T: JsonSchema>() -> Value {
    let mut schema = described::<T>();
    for_each_schema(&mut schema, &mut |schema| _ = schema.remove("description"));
    schema
}

/// The schema of a Kubernetes type with its descriptions.
pub fn described<T: JsonSchema>() -> Value {
    // By name, which is what the tables go by: a CRD wants types inlined, and then they have none.
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root = generator.subschema_for::<T>().to_value();
    let types = generator.take_definitions(false);
    inlined(root, &types)
}

/// A schema with every reference replaced by the type it refers to, repaired.
fn inlined(mut schema: Value, types: &Map<String, Value>) -> Value {
    if let Some(name) = reference(&schema) {
        let mut referred = types[&name].clone();
        repair(&mut referred, short_name(&name));
        // What stands beside a reference is about the field: it wins over what the type says of itself.
        if let Some(description) = schema.get_mut("description") {
            referred["description"] = description.take();
        }
        return inlined(referred, types);
    }
    match schema {
        Value::Object(keys) => {
            let mut schema = keys.into_iter().map(|(key, value)| (key, inlined(value, types))).collect();
            require_map_keys(&mut schema);
            schema
        }
        Value::Array(items) => items.into_iter().map(|item| inlined(item, types)).collect(),
        scalar => scalar,
    }
}

fn reference(schema: &Value) -> Option<String> {
    let path = schema.get("$ref")?.as_str()?;
    Some(path.rsplit('/').next().unwrap_or(path).to_owned())
}

/// "io.k8s.api.core.v1.Container" → "core.v1.Container", which is unique among these types.
fn short_name(name: &str) -> &str {
    let start = name.rmatch_indices('.').nth(2).map_or(0, |(dot, _)| dot + 1);
    &name[start..]
}

fn repair(schema: &mut Value, name: &str) {
    match name {
        // Not int-or-string, as controller-gen has it: that refuses `cpu: 0.5`, which a Job accepts. Without a type any
        // number passes, and the pattern is held against texts.
        "api.resource.Quantity" => {
            *schema = json!({ "x-kubernetes-preserve-unknown-fields": true, "pattern": QUANTITY });
        }
        "util.intstr.IntOrString" => schema["anyOf"] = json!([{ "type": "integer" }, { "type": "string" }]),
        "meta.v1.ObjectMeta" => {
            let properties = schema["properties"].as_object_mut().expect("ObjectMeta has properties");
            properties.retain(|property, _| TEMPLATE_METADATA.contains(&property.as_str()));
        }
        _ => {}
    }
    for (_, list, keys) in MAP_LISTS.iter().filter(|(owner, ..)| *owner == name) {
        let list = property(schema, list);
        list["x-kubernetes-list-type"] = json!("map");
        list["x-kubernetes-list-map-keys"] = json!(keys);
    }
    for (_, list) in SET_LISTS.iter().filter(|(owner, _)| *owner == name) {
        property(schema, list)["x-kubernetes-list-type"] = json!("set");
    }
    for (_, map) in ATOMIC_MAPS.iter().filter(|(owner, _)| *owner == name) {
        property(schema, map)["x-kubernetes-map-type"] = json!("atomic");
    }
    if ATOMIC_TYPES.contains(&name) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    if NAME_IS_OPTIONAL.contains(&name) {
        remove_required(schema, "name");
    }
}

fn property<'a>(schema: &'a mut Value, name: &str) -> &'a mut Value {
    schema["properties"].get_mut(name).expect("the tables name fields that exist")
}

/// A CRD may name only required fields as the keys of a map list. One of Kubernetes' own is optional there: the name in
/// `imagePullSecrets`, where an entry without a name does nothing.
fn require_map_keys(list: &mut Value) {
    let Some(keys) = list.get("x-kubernetes-list-map-keys").cloned() else { return };
    let items = list["items"].as_object_mut().expect("a list has items");
    let required = items.entry("required").or_insert(json!([])).as_array_mut().expect("names");
    for key in keys.as_array().expect("names") {
        if !required.contains(key) {
            required.push(key.clone());
        }
    }
}

fn remove_required(schema: &mut Value, field: &str) {
    let schema = schema.as_object_mut().expect("a schema");
    let required = schema["required"].as_array_mut().expect("names");
    required.retain(|name| name != field);
    // An empty list is not valid in the OpenAPI that the API server publishes.
    if required.is_empty() {
        schema.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::JobSpec;

    use super::*;

    /// A row that matches nothing would be left behind by a rename in a new version of Kubernetes.
    #[test]
    fn every_type_in_the_tables_is_part_of_a_job() {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        generator.subschema_for::<JobSpec>();
        let types = generator.take_definitions(false);
        let types: Vec<_> = types.keys().map(|name| short_name(name)).collect();

        let in_tables = MAP_LISTS.iter().map(|(owner, ..)| owner);
        let in_tables = in_tables.chain(SET_LISTS.iter().map(|(owner, _)| owner));
        let in_tables = in_tables.chain(ATOMIC_MAPS.iter().map(|(owner, _)| owner));
        for name in in_tables.chain(ATOMIC_TYPES).chain(NAME_IS_OPTIONAL) {
            assert!(types.contains(name), "no {name} in a Job");
        }
    }

    #[test]
    fn short_names_keep_group_and_version() {
        assert_eq!(short_name("io.k8s.api.core.v1.Container"), "core.v1.Container");
        assert_eq!(short_name("io.k8s.apimachinery.pkg.api.resource.Quantity"), "api.resource.Quantity");
    }
}
