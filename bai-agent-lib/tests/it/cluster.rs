//! Sessions of three kernels, as an agent is asked for them, and what their kernels must see.

use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::port::cluster::{ClusterNetwork, ClusterSpec, SshKeypair};
use bai_core::status::ClusterMode;
use bai_core::{KernelId, SessionId};
use bai_testkit::agent_api::{AgentUnderTest, text_of};

pub(crate) const HOSTS: [&str; 3] = ["main1", "sub1", "sub2"];

/// The kernels of a session, main one first.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) specs: Vec<KernelSpec>,
}

impl Cluster {
    /// A session whose kernels are all for `subject`.
    pub(crate) fn new(subject: &AgentUnderTest, mode: ClusterMode) -> Self {
        let session = SessionId::random();
        let kind = mode.as_str().replace('-', "");
        let cluster = ClusterSpec {
            network: ClusterNetwork {
                mode,
                name: format!("bai-{kind}-{session}"),
                hosts: HOSTS.map(str::to_owned).to_vec(),
            },
            ssh: SshKeypair {
                private_key: format!("private of {session}\n").into(),
                public_key: format!("ssh-ed25519 public-of-{session} c"),
            },
        };
        let kernel = |hostname: &str| KernelSpec {
            kernel: KernelRef { id: KernelId::random(), generation: 1 },
            session,
            hostname: hostname.to_owned(),
            preopen_ports: Vec::new(),
            cluster: Some(cluster.clone()),
            ..subject.spec()
        };
        Self { specs: HOSTS.map(kernel).to_vec() }
    }

    pub(crate) fn kernel(&self, index: usize) -> KernelRef {
        self.specs[index].kernel
    }

    pub(crate) fn network(&self) -> &str {
        &self.specs[0].cluster.as_ref().unwrap().network.name
    }

    /// Starts all kernels with one command and waits until they run.
    pub(crate) async fn start(&self, subject: &AgentUnderTest) {
        subject.api.create_kernels(self.specs.clone()).await.unwrap();
        for spec in &self.specs {
            subject.running(spec.kernel).await;
        }
    }

    /// The next start of the same kernels.
    pub(crate) fn restarted(&self) -> Self {
        let mut next = self.clone();
        next.specs.iter_mut().for_each(|spec| spec.kernel.generation += 1);
        next
    }

    pub(crate) async fn end(&self, subject: &AgentUnderTest) {
        for spec in &self.specs {
            subject.end(spec.kernel).await;
        }
    }

    /// Every kernel has its name and resolves all names, and connections by name work in both directions.
    pub(crate) async fn is_connected(&self, subject: &AgentUnderTest) {
        for (index, name) in HOSTS.iter().enumerate() {
            let seen = said(subject, self.kernel(index), "import socket; print(socket.gethostname())").await;
            assert_eq!(seen, *name);
            let code = "print(all(socket.getaddrinfo(name, 1) for name in ('main1', 'sub1', 'sub2')))";
            assert_eq!(said(subject, self.kernel(index), code).await, "True", "{name}");
        }
        self.connects(subject, 0, 1).await;
        self.connects(subject, 2, 0).await;
    }

    async fn connects(&self, subject: &AgentUnderTest, from: usize, to: usize) {
        let port = listen(subject, self.kernel(to)).await;
        assert_eq!(connect(subject, self.kernel(from), HOSTS[to], &port).await, "hello");
    }

    /// All kernels have the session's keys, privately, and use them for each other, told once.
    pub(crate) async fn shares_keys(&self, subject: &AgentUnderTest) {
        let keys = &self.specs[0].cluster.as_ref().unwrap().ssh;
        for spec in &self.specs {
            let code = "import os, pathlib\n\
                 ssh, home = pathlib.Path('/home/config/ssh'), pathlib.Path('/home/work/.ssh')\n\
                 for path in (ssh / 'id_cluster', ssh / 'id_cluster.pub', home / 'config', home / 'authorized_keys'):\n\
                 \x20   found = path.stat()\n\
                 \x20   print(oct(found.st_mode & 0o7777), found.st_uid == os.getuid())\n\
                 print(oct(home.stat().st_mode & 0o7777))\n\
                 print((home / 'config').read_text().count('Host main* sub*'))\n\
                 print((ssh / 'id_cluster').read_text() + (ssh / 'id_cluster.pub').read_text(), end='')\n\
                 print((home / 'authorized_keys').read_text(), end='')";
            let expected = format!(
                "{}0o700\n1\n{}{public}\n{public}",
                "0o600 True\n".repeat(4),
                keys.private_key.reveal(),
                public = keys.public_key
            );
            assert_eq!(said(subject, spec.kernel, code).await, expected, "{}", spec.hostname);
        }
    }
}

/// What a program printed, without the end of its last line.
pub(crate) async fn said(subject: &AgentUnderTest, kernel: KernelRef, code: &str) -> String {
    let reply = subject.query(kernel, code).await;
    let (out, err) = (text_of(&reply, "stdout"), text_of(&reply, "stderr"));
    assert!(err.is_empty(), "{err}");
    out.trim_end().to_owned()
}

/// Has a kernel greet whoever connects; the port.
pub(crate) async fn listen(subject: &AgentUnderTest, kernel: KernelRef) -> String {
    let code = "import socket, threading\n\
         server = socket.create_server(('', 0))\n\
         def serve(server=server):\n\
         \x20   while True:\n\
         \x20       peer = server.accept()[0]\n\
         \x20       peer.sendall(b'hello')\n\
         \x20       peer.close()\n\
         threading.Thread(target=serve, daemon=True).start()\n\
         print(server.getsockname()[1])";
    said(subject, kernel, code).await
}

/// What a kernel hears at an address, or the name of the exception.
pub(crate) async fn connect(subject: &AgentUnderTest, kernel: KernelRef, host: &str, port: &str) -> String {
    let code = format!(
        "import socket\n\
         try:\n\
         \x20   print(socket.create_connection(('{host}', {port}), timeout=3).recv(5).decode())\n\
         except OSError as error:\n\
         \x20   print(type(error).__name__)"
    );
    said(subject, kernel, &code).await
}
