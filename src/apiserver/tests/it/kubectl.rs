//! kubectl's everyday commands. Without a kubectl (in `PATH`, or named by `KUBECTL`) these tests say that they are
//! skipped.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::{DEADLINE, Login, World, definition};

/// kubectl with its own home, configured for a server.
struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

/// What a command printed.
#[derive(Debug)]
struct Output {
    success: bool,
    out: String,
    err: String,
}

impl Kubectl {
    /// `None`, said aloud, where there is no kubectl.
    fn find(world: &World, login: Login) -> Option<Self> {
        let named = std::env::var_os("KUBECTL").map(PathBuf::from);
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = named.or_else(|| {
            std::env::split_paths(&paths).map(|path| path.join("kubectl")).find(|path| path.is_file())
        });
        let Some(program) = found else {
            eprintln!("SKIPPED: there is no kubectl; install it or set KUBECTL");
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("kubeconfig"), world.kubeconfig_json(login).to_string()).unwrap();
        Some(Self { program, home })
    }

    fn admin(world: &World) -> Option<Self> {
        Self::find(world, Login::Certificate(world.ca.client("admin", "system:masters")))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(line.split_whitespace())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command with words from `line` and further arguments, which may contain spaces.
    async fn run(&self, line: &str, further: &[&str], input: &str) -> Output {
        let mut command = self.command(line);
        let mut child =
            command.args(further).env("KUBE_EDITOR", "sed -i s/a.example/edited.example/").spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output =
            tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("kubectl ends").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Output { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command that has to succeed, and gives what it printed.
    async fn good(&self, line: &str) -> String {
        let output = self.run(line, &[], "").await;
        assert!(output.success, "kubectl {line}: {output:?}");
        output.out
    }

    /// Runs a command that has to fail, and gives what it complained about.
    async fn bad(&self, line: &str) -> String {
        let output = self.run(line, &[], "").await;
        assert!(!output.success, "kubectl {line}: {output:?}");
        output.err
    }

    async fn apply(&self, manifest: &str) -> String {
        let output = self.run("apply -f -", &[], manifest).await;
        assert!(output.success, "kubectl apply: {output:?}");
        assert_eq!(output.err, "", "apply warns about nothing");
        output.out
    }
}

/// The words of each line, without the heading.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn heading(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split_whitespace().collect()
}

const ROUTE: &str = "
apiVersion: test.example/v1alpha1
kind: APIRoute
metadata:
  name: r
  labels: {app: web}
spec:
  host: a.example
";

const BUILT_IN: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: '1'}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {p: secret}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: avapigw
  rules:
  - host: a.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: leader}
spec: {holderIdentity: me, leaseDurationSeconds: 5}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], conditions: {}}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: avapigw}
spec: {controller: test.example/gateway}
";

/// A server with the definition and one route, and kubectl for it.
async fn with_route() -> Option<(World, Kubectl)> {
    let world = World::start().await;
    let kubectl = Kubectl::admin(&world)?;
    kubectl.apply(&definition().to_string()).await;
    kubectl.good("wait --for=condition=Established crd/apiroutes.test.example").await;
    assert_eq!(kubectl.apply(ROUTE).await, "apiroute.test.example/r created\n");
    Some((world, kubectl))
}

#[tokio::test]
async fn apply_creates_changes_and_leaves_alone() {
    let Some((world, kubectl)) = with_route().await else { return };
    let before = world.server.revision();
    assert_eq!(kubectl.apply(ROUTE).await, "apiroute.test.example/r unchanged\n");
    assert_eq!(kubectl.apply(&definition().to_string()).await.lines().count(), 1);
    assert_eq!(world.server.revision(), before);
    let changed = ROUTE.replace("a.example", "b.example");
    assert_eq!(kubectl.apply(&changed).await, "apiroute.test.example/r configured\n");
    assert_eq!(
        kubectl.good("get apiroute r -o jsonpath={.spec.host}{.metadata.generation}").await,
        "b.example2"
    );

    let created = kubectl.apply(BUILT_IN).await;
    assert!(
        created.lines().count() == 7 && created.lines().all(|line| line.ends_with(" created")),
        "{created}"
    );
    let again = kubectl.apply(BUILT_IN).await;
    // A Secret's stringData is not read back, so kubectl cannot know that it would change nothing.
    let unchanged = again.lines().filter(|line| line.ends_with(" unchanged")).count();
    assert!(unchanged >= 6, "{again}");
    // A list that is merged by key: the second port comes, the first stays.
    let ports = BUILT_IN
        .replace("ports: [{name: http, port: 80,", "ports: [{name: tls, port: 443}, {name: http, port: 80,");
    assert!(kubectl.apply(&ports).await.contains("service/web configured"));
    assert_eq!(kubectl.good("get svc web -o jsonpath={.spec.ports[*].port}").await.split(' ').count(), 2);
    assert!(kubectl.apply(BUILT_IN).await.contains("service/web configured"));
    assert_eq!(kubectl.good("get svc web -o jsonpath={.spec.ports[*].port}").await, "80");
}

#[tokio::test]
async fn apply_refuses_what_the_schema_refuses() {
    let Some((_world, kubectl)) = with_route().await else { return };
    let typo = kubectl.run("apply -f -", &[], &ROUTE.replace("  host:", "  hots: x\n  host:")).await;
    assert!(
        !typo.success && typo.err.contains("strict decoding error: unknown field \"spec.hots\""),
        "{typo:?}"
    );
    let empty = kubectl.run("apply -f -", &[], &ROUTE.replace("a.example", "''")).await;
    assert!(empty.err.contains("The APIRoute \"r\" is invalid: spec.host: Invalid value"), "{empty:?}");
    let unlucky = kubectl.run("apply -f -", &[], &ROUTE.replace("  host:", "  weight: 13\n  host:")).await;
    assert!(unlucky.err.contains("weight must not be unlucky"), "{unlucky:?}");
    let built_in = kubectl.run("apply -f -", &[], &BUILT_IN.replace("selector:", "select:")).await;
    assert!(built_in.err.contains("unknown field \"spec.select\""), "{built_in:?}");
}

#[tokio::test]
async fn get_prints_tables_and_objects() {
    let Some((_world, kubectl)) = with_route().await else { return };
    kubectl.apply(BUILT_IN).await;
    let plain = kubectl.good("get apiroutes").await;
    assert_eq!(heading(&plain), ["NAME", "READY", "AGE"]);
    assert_eq!(rows(&plain)[0][0], "r");
    let wide = kubectl.good("get ar -o wide").await;
    assert_eq!(heading(&wide), ["NAME", "READY", "HOST", "AGE"]);
    assert_eq!(rows(&wide)[0][1], "a.example");
    assert_eq!(heading(&kubectl.good("get routing -A").await)[0], "NAMESPACE");
    assert!(kubectl.good("get ar --show-labels").await.contains("app=web"));
    assert!(kubectl.good("get ar -l app=web -o name").await.contains("apiroute.test.example/r"));
    assert_eq!(kubectl.good("get ar -l app!=web -o name").await, "");
    assert_eq!(kubectl.good("get ar --field-selector spec.host=b.example -o name").await, "");
    assert!(kubectl.good("get ar r -o yaml").await.contains("  host: a.example\n"));
    let json: serde_json::Value = serde_json::from_str(&kubectl.good("get ar r -o json").await).unwrap();
    assert_eq!(json["spec"]["host"], "a.example");
    let ingress = kubectl.good("get ing").await;
    assert_eq!(rows(&ingress)[0][..3], ["web", "avapigw", "a.example"]);
    let service = kubectl.good("get svc").await;
    assert_eq!(heading(&service), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(rows(&service)[0][4], "80/TCP");
    assert_eq!(rows(&kubectl.good("get secret").await)[0][..3], ["password", "Opaque", "1"]);
    assert_eq!(rows(&kubectl.good("get lease").await)[0][..2], ["leader", "me"]);
    assert_eq!(rows(&kubectl.good("get ns default").await)[0][..2], ["default", "Active"]);
    assert_eq!(kubectl.good("get cm,endpointslice,ingressclass -o name").await.lines().count(), 3);
    assert!(
        kubectl
            .bad("get ar nobody")
            .await
            .contains(r#"(NotFound): apiroutes.test.example "nobody" not found"#)
    );
    assert!(kubectl.bad("get pods").await.contains("the server doesn't have a resource type \"pods\""));
}

#[tokio::test]
async fn get_follows_changes() {
    let Some((_world, kubectl)) = with_route().await else { return };
    let mut child: Child = kubectl.command("get ar -w --output-watch-events").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line in time");
        let line = line.unwrap().expect("a line");
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["EVENT", "NAME"]);
    assert_eq!(next().await, ["ADDED", "r"]);
    kubectl.apply(&ROUTE.replace("name: r", "name: s")).await;
    assert_eq!(next().await, ["ADDED", "s"]);
    kubectl.good("label ar s more=labels").await;
    assert_eq!(next().await, ["MODIFIED", "s"]);
    kubectl.good("delete ar s").await;
    assert_eq!(next().await, ["DELETED", "s"]);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn objects_are_described_and_edited() {
    let Some((_world, kubectl)) = with_route().await else { return };
    kubectl.apply(BUILT_IN).await;
    let route = kubectl.good("describe ar r").await;
    assert!(route.contains("Host:  a.example") && route.contains("Events:  <none>"), "{route}");
    for (kind, expected) in [
        ("ns default", "Status:       Active"),
        ("cm settings", "Data\n===="),
        ("secret password", "p:  6 bytes"),
        ("svc web", "10.0.0.1:8080"),
        ("ing web", "a.example"),
        ("crd apiroutes.test.example", "Established"),
        ("lease leader", "Holder Identity:"),
    ] {
        let text = kubectl.good(&format!("describe {kind}")).await;
        assert!(text.contains(expected), "{kind}: {text}");
    }
    assert_eq!(kubectl.good("edit ar r").await, "apiroute.test.example/r edited\n");
    assert_eq!(kubectl.good("get ar r -o jsonpath={.spec.host}").await, "edited.example");
    assert_eq!(kubectl.good("edit ing web").await, "ingress.networking.k8s.io/web edited\n");
    assert_eq!(kubectl.good("get ing web -o jsonpath={.spec.rules[*].host}").await, "edited.example");
}

#[tokio::test]
async fn objects_are_patched_labelled_and_annotated() {
    let Some((_world, kubectl)) = with_route().await else { return };
    kubectl.apply(BUILT_IN).await;
    for (line, patch) in [
        ("patch ar r --type=merge -p", r#"{"spec": {"port": 1}}"#),
        ("patch ar r --type=json -p", r#"[{"op": "replace", "path": "/spec/host", "value": "b.example"}]"#),
        ("patch svc web --type=strategic -p", r#"{"spec": {"ports": [{"port": 80, "name": "web"}]}}"#),
        ("patch ar r --subresource=status --type=merge -p", r#"{"status": {"observedGeneration": 3}}"#),
    ] {
        let output = kubectl.run(line, &[patch], "").await;
        assert!(output.success && output.out.ends_with(" patched\n"), "{line} {patch}: {output:?}");
    }
    assert_eq!(
        kubectl.good("get ar r -o jsonpath={.spec.port},{.spec.host},{.status.observedGeneration}").await,
        "1,b.example,3"
    );
    assert_eq!(kubectl.good("get svc web -o jsonpath={.spec.ports[*].name}").await, "web");
    let refused = kubectl.run("patch ar r --type=strategic -p", &[r#"{"spec": {"port": 2}}"#], "").await;
    assert!(refused.err.contains("application/strategic-merge-patch+json is not supported"), "{refused:?}");
    assert_eq!(kubectl.good("label ar r team=a").await, "apiroute.test.example/r labeled\n");
    assert_eq!(kubectl.good("annotate svc web note=x").await, "service/web annotated\n");
    assert_eq!(kubectl.good("label ar r team-").await, "apiroute.test.example/r unlabeled\n");
    // What was applied by the client goes on being applied by the server; what others changed is a conflict.
    let conflict = kubectl.run("apply --server-side -f -", &[], ROUTE).await;
    assert!(conflict.err.contains("Apply failed with 1 conflict: "), "{conflict:?}");
    assert!(conflict.err.contains(".spec.host") && conflict.err.contains("kubectl-patch"), "{conflict:?}");
    let forced = kubectl.run("apply --server-side --force-conflicts -f -", &[], ROUTE).await;
    assert_eq!(forced.out, "apiroute.test.example/r serverside-applied\n", "{forced:?}");
    assert_eq!(kubectl.good("get ar r -o jsonpath={.spec.host}").await, "a.example");
}

#[tokio::test]
async fn objects_are_waited_for_and_deleted() {
    let Some((_world, kubectl)) = with_route().await else { return };
    let mut waiting: Child =
        kubectl.command("wait --for=condition=Ready --timeout=20s ar/r").spawn().unwrap();
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
    let output = kubectl.run("patch ar r --subresource=status --type=merge -p", &[ready], "").await;
    assert!(output.success, "{output:?}");
    let ended = tokio::time::timeout(DEADLINE, waiting.wait()).await.expect("wait ends").unwrap();
    assert!(ended.success());
    assert_eq!(rows(&kubectl.good("get ar").await)[0][1], "True");
    assert_eq!(kubectl.good("delete ar r").await, "apiroute.test.example \"r\" deleted\n");
    kubectl.apply(ROUTE).await;
    assert!(kubectl.good("delete ar --all").await.contains("deleted"));
    kubectl.good("delete crd apiroutes.test.example").await;
    assert!(kubectl.run("get ar", &[], "").await.err.contains("the server"));
}

#[tokio::test]
async fn kubectl_makes_objects_itself() {
    let world = World::start().await;
    let Some(kubectl) = Kubectl::admin(&world) else { return };
    assert_eq!(kubectl.good("create namespace team").await, "namespace/team created\n");
    for line in [
        "create configmap c -n team --from-literal=a=b",
        "create secret generic s -n team --from-literal=a=b",
        "create service clusterip web -n team --tcp=80:8080",
        "create ingress web -n team --rule=a.example/*=web:80",
    ] {
        assert!(kubectl.good(line).await.ends_with(" created\n"), "{line}");
    }
    assert_eq!(kubectl.good("get secret s -n team -o jsonpath={.data.a}").await, "Yg==");
    assert_eq!(kubectl.good("get svc web -n team -o jsonpath={.spec.ports[0].targetPort}").await, "8080");
    let again = kubectl.bad("create namespace team").await;
    assert_eq!(again, "Error from server (AlreadyExists): namespaces \"team\" already exists\n");
    assert_eq!(kubectl.good("auth can-i create configmaps").await, "yes\n");
    assert!(kubectl.good("auth whoami").await.contains("system:masters"));
    assert_eq!(kubectl.good("delete namespace team").await, "namespace \"team\" deleted\n");
    let refused = kubectl.bad("delete namespace default").await;
    assert!(refused.contains("(Forbidden): namespaces \"default\" is forbidden"), "{refused}");
}

#[tokio::test]
async fn resources_are_listed_and_explained() {
    let Some((_world, kubectl)) = with_route().await else { return };
    let table = kubectl.good("api-resources").await;
    let routes = rows(&table).into_iter().find(|row| row[0] == "apiroutes");
    assert_eq!(routes.unwrap()[1..], ["ar", "test.example/v1alpha1", "true", "APIRoute"]);
    for (name, expected) in [
        ("apiroute.spec.host", "Host is matched."),
        ("ingress.spec.rules", "IngressRule"),
        ("lease.spec", "leaseDurationSeconds"),
    ] {
        let text = kubectl.good(&format!("explain {name}")).await;
        assert!(text.contains(expected), "{name}: {text}");
    }
    assert!(kubectl.good("api-versions").await.contains("test.example/v1alpha1\n"));
    assert!(kubectl.good("version").await.contains("Server Version: v1.34"));
}

#[tokio::test]
async fn strangers_and_guests_read_why_not() {
    let world = World::start().await;
    let Some(guest) = Kubectl::find(&world, Login::Certificate(world.ca.client("guest", "guests"))) else {
        return;
    };
    let refused = guest.bad("get cm").await;
    let text = "Error from server (Forbidden): configmaps is forbidden: User \"guest\" cannot list resource \
                \"configmaps\" in API group \"\" in the namespace \"default\"\n";
    assert_eq!(refused, text);
    let Some(stranger) = Kubectl::find(&world, Login::Token("wrong".into())) else { return };
    let refused = stranger.bad("get cm").await;
    assert!(refused.contains("You must be logged in to the server"), "{refused}");
}
