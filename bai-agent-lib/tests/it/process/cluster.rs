//! Sessions of several kernels on one host.

use std::sync::Arc;

use bai_core::port::agent::KernelStage;
use bai_core::status::ClusterMode;

use super::agent::{start, under_test};
use super::kernel::Host;
use crate::cluster::{Cluster, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_of_a_session_know_each_other() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    cluster.start(&subject).await;
    cluster.is_connected(&subject).await;
    cluster.shares_keys(&subject).await;
    let getent = "import subprocess\n\
                  print(subprocess.run(['getent', 'hosts', 'sub1'], capture_output=True, text=True).stdout.split())";
    assert_eq!(said(&subject, cluster.kernel(2), getent).await, "['127.0.0.1', 'sub2', 'main1', 'sub1']");

    let again = cluster.restarted();
    again.start(&subject).await;
    again.is_connected(&subject).await;
    again.shares_keys(&subject).await;

    let alone = subject.kernel().await;
    let seen = "import os, socket\n\
                print(os.path.exists('/home/config/ssh'), os.path.exists('/home/work/.ssh'))\n\
                try: print(socket.gethostbyname('sub1'))\n\
                except OSError: print('unknown')";
    assert_eq!(said(&subject, alone, seen).await, "False False\nunknown");

    again.end(&subject).await;
    subject.end(alone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_across_agents_are_refused() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let main = Cluster::new(&subject, ClusterMode::MultiNode).specs.remove(0);
    let kernel = main.kernel;
    subject.api.create_kernels(vec![main]).await.unwrap();
    let report = subject.report(kernel, |report| matches!(report.stage, KernelStage::Failed { .. })).await;
    let KernelStage::Failed { code, message } = report.stage else { unreachable!() };
    assert_eq!(code, bai_core::error::code::UNSUPPORTED.id());
    assert!(message.contains("swarm"), "{message}");
}
