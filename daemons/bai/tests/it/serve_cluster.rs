//! Sessions of three kernels on a server: what they know of each other, over a restart and a crash of the server, and what is
//! left of them.

use std::process::Command;
use std::time::Duration;

use bai_client::Session;

use crate::backend::Backend;
use crate::patience::until;
use crate::serve::Serve;
use crate::sessions::new_session;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_processes_live_through_restarts_and_crashes() {
    clusters_live(Backend::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_containers_live_through_restarts_and_crashes() {
    clusters_live(Backend::Docker).await;
}

async fn clusters_live(backend: Backend) {
    let Some(mut server) = Serve::start(backend).await else { return };
    let client = server.client();
    let start = async |name: &str| client.create(new_session(name).cluster_size(3)).await.unwrap();
    let (one, other) = (start("first").await, start("other").await);
    let keys = keys(&one).await;
    assert_ne!(keys, self::keys(&other).await);
    knows_its_siblings(&one).await;
    assert_eq!(networks(&server, backend), if backend == Backend::Docker { 2 } else { 0 });

    one.restart().await.unwrap();
    knows_its_siblings(&one).await;
    assert_eq!(self::keys(&one).await, keys, "a restart keeps them");

    server.kill().await;
    server.restart().await;
    let client = server.client();
    let one = client.session("first");
    knows_its_siblings(&one).await;
    for name in ["first", "other"] {
        client.session(name).destroy().await.unwrap();
    }
    server.node.is_clean().await;
    until("the networks are to go", async || match networks(&server, backend) {
        0 => Ok(()),
        left => Err(format!("{left} networks")),
    })
    .await;
    server.stop().await;
}

/// The session's variables and names, seen from its main kernel.
async fn knows_its_siblings(session: &Session) {
    let code = "import os, socket\n\
         print(socket.gethostname())\n\
         for name in ('SIZE', 'REPLICAS', 'HOSTS', 'ROLE', 'IDX', 'LOCAL_RANK', 'HOST'):\n\
         \x20   print(os.environ['BACKENDAI_CLUSTER_' + name])\n\
         addresses = [socket.gethostbyname(name) for name in ('main1', 'sub1', 'sub2')]\n\
         print(len(addresses))";
    assert_eq!(said(session, code).await, "main1\n3\nmain:1,sub:2\nmain1,sub1,sub2\nmain\n1\n0\nmain1\n3\n");
}

/// The public key, once the files say that it is the session's own.
async fn keys(session: &Session) -> String {
    let code = "import base64, os, pathlib\n\
         ssh, home = pathlib.Path('/home/config/ssh'), pathlib.Path('/home/work/.ssh')\n\
         private, public = (ssh / 'id_cluster').read_text(), (ssh / 'id_cluster.pub').read_text()\n\
         print(private.splitlines()[0], private.splitlines()[-1])\n\
         key = base64.b64decode(''.join(private.splitlines()[1:-1]))\n\
         print(base64.b64decode(public.split()[1]) in key, (home / 'authorized_keys').read_text() == public)\n\
         print((home / 'config').read_text().count('IdentityFile /home/config/ssh/id_cluster'))\n\
         print(*(oct(path.stat().st_mode & 0o777) for path in (ssh / 'id_cluster', home, home / 'config')))\n\
         print(public, end='')";
    let text = said(session, code).await;
    let public = text.strip_prefix(
        "-----BEGIN OPENSSH PRIVATE KEY----- -----END OPENSSH PRIVATE KEY-----\n\
         True True\n1\n0o600 0o700 0o600\nssh-ed25519 ",
    );
    public.unwrap_or_else(|| panic!("{text}")).to_owned()
}

async fn said(session: &Session, code: &str) -> String {
    let answer = tokio::time::timeout(Duration::from_mins(1), session.run(code)).await.unwrap().unwrap();
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    answer.stdout()
}

/// How many networks the server's sessions have on the engine.
fn networks(server: &Serve, backend: Backend) -> usize {
    if backend != Backend::Docker {
        return 0;
    }
    let owner = format!("label={}", server.node.owner());
    let filters = ["--filter", "label=ai.backend.cluster-network=1", "--filter", &owner];
    let listed = Command::new("docker").args(["network", "ls", "-q"]).args(filters).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    String::from_utf8_lossy(&listed.stdout).lines().count()
}
