//! The same as a normal user. When the tests run as root, this test starts itself again without root's powers.

use std::os::unix::fs::chown;
use std::process::Command;

use nix::unistd::Uid;

use super::hostile;
use super::kernel::{Host, Kernel};

const NOBODY: u32 = 65534;
const DIRECTORY: &str = "BAI_TEST_ROOTLESS_DIR";

#[test]
fn a_normal_user_is_as_safe() {
    if Uid::current().is_root() { as_nobody() } else { as_ourselves() }
}

fn as_nobody() {
    let dir = tempfile::Builder::new().prefix("bai-").tempdir().unwrap();
    let _host = Host::prepare(dir.path());
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Where this program was built, another user may not look.
    let program = dir.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = concat!(module_path!(), "::a_normal_user_is_as_safe");
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program)
        .args([name.split_once("::").unwrap().1, "--exact", "--nocapture"])
        .env(DIRECTORY, dir.path())
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{problem}");
}

#[tokio::main]
async fn as_ourselves() {
    let host = std::env::var_os(DIRECTORY).map_or_else(Host::new, |dir| Host::at(dir.as_ref()));
    let backend = host.backend().await;
    let mut kernel = Kernel::start(&host, &backend, "python").await;
    assert_eq!(kernel.client.output("print(6 * 7)"), "42");
    let told = kernel.started.gaps.iter().any(|gap| gap.starts_with("no control groups"));
    assert_eq!(told, !kernel.prove().by_group, "{:?}", kernel.started.gaps);
    kernel.end(&backend).await;
    hostile::everything(&host, &backend).await;
}
