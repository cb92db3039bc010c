//! The flags of the three parts.

use std::path::PathBuf;

use super::{Error, RealKube, ports};

/// Where the parts listen on 127.0.0.1. The controller manager serves nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) apiserver: u16,
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
}

impl Ports {
    pub(super) fn choose() -> Result<Self, Error> {
        let [apiserver, etcd, etcd_peer] = ports::free().map_err(Error::io("find free ports"))?;
        Ok(Self { apiserver, etcd, etcd_peer })
    }
}

impl RealKube {
    pub(super) fn etcd_data(&self) -> PathBuf {
        self.dir.path().join("etcd-data")
    }

    fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    pub(super) fn etcd_args(&self) -> Vec<String> {
        let client = self.etcd_url();
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut args = vec![
            "--name=test".into(),
            format!("--data-dir={}", self.etcd_data().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=test={peer}"),
            // The data dies with the test; waiting for the disk proves nothing.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ];
        args.extend(self.options.etcd_args.iter().cloned());
        args
    }

    pub(super) fn apiserver_args(&self) -> Vec<String> {
        let files = &self.credentials;
        let mut args = vec![
            format!("--etcd-servers={}", self.etcd_url()),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // Refuses loopback addresses otherwise, and nothing here uses the
            // `kubernetes` service.
            "--endpoint-reconciler-type=none".into(),
            format!("--secure-port={}", self.ports.apiserver),
            format!("--cert-dir={}", self.dir.path().join("apiserver").display()),
            format!("--tls-cert-file={}", files.serving_cert.display()),
            format!("--tls-private-key-file={}", files.serving_key.display()),
            format!("--client-ca-file={}", files.ca.display()),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", files.service_account_public_key.display()),
            format!("--service-account-signing-key-file={}", files.service_account_key.display()),
        ];
        args.extend(self.options.apiserver_args.iter().cloned());
        args
    }

    pub(super) fn controller_manager_args(&self) -> Vec<String> {
        let files = &self.credentials;
        vec![
            format!("--kubeconfig={}", self.kubeconfig().display()),
            // What an API server without nodes needs to behave like one with.
            "--controllers=namespace-controller,garbage-collector-controller,\
             serviceaccount-controller,root-ca-certificate-publisher-controller"
                .into(),
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", files.service_account_key.display()),
            format!("--root-ca-file={}", files.ca.display()),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ]
    }
}
