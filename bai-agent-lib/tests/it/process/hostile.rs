//! Code that tries to harm the host or other kernels, in kernels proven to be isolated first.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use bai_agent_lib::backend::process::ProcessBackend;
use bai_core::port::KernelBackend;
use nix::unistd::Uid;
use serde_json::Value;

use super::kernel::{Host, Kernel, PIDS, Proof};

#[tokio::test(flavor = "multi_thread")]
async fn root_is_safe() {
    assert!(
        Uid::current().is_root(),
        "the tests of this crate run as root; a normal user is tried by the rootless test"
    );
    let host = Host::new();
    let backend = host.backend().await;
    everything(&host, &backend).await;
}

type Attack = fn(&mut Kernel, &Proof);

/// Every attack, each on a fresh kernel, with another kernel and a process of the same user as bystanders.
pub(super) async fn everything(host: &Host, backend: &ProcessBackend) {
    let mut other = Kernel::start(host, backend, "python").await;
    other.client.output("open('/home/work/secret', 'w').write('mine'); x = 1");
    let mut bystander = Bystander::new(other.spec.uid_gid.0);
    let attacks: [(Attack, bool); 5] = [
        (attempts, false),
        (kill_everything, false),
        (fork_bomb, false),
        (memory_hog, true),
        (large_file, false),
    ];
    for (attack, exhausts_memory) in attacks {
        let mut kernel = Kernel::start(host, backend, "python").await;
        let proof = kernel.prove();
        attack(&mut kernel, &proof);
        assert_eq!(kernel.client.output("print('alive')"), "alive", "the kernel answers afterwards");
        let stats = backend.stats(kernel.spec.kernel).await.unwrap();
        assert_eq!(stats["oom_kills"]["current"] != "0", exhausts_memory && proof.by_group, "{stats:?}");
        kernel.end(backend).await;
        assert_eq!(other.client.output("print(x)"), "1", "the other kernel is untouched");
        assert!(bystander.is_alive());
    }
    other.end(backend).await;
}

/// A process on the host with the user id of user code.
struct Bystander(Child);

impl Bystander {
    fn new(uid: u32) -> Self {
        let mut command = Command::new("sleep");
        if Uid::current().is_root() {
            command.uid(uid).gid(uid);
        }
        Self(command.arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each attempt is tried in Python; the answer is the error it met, or what it got.
const ATTEMPTS: &str = r"
import ctypes, errno, json, os, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    result = getattr(libc, name)(*args)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else 'ok'
def attempt(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]
def write(path):
    open(path, 'w').write('x')
    return 'ok'
def connect(address):
    socket.socket(socket.AF_UNIX).connect(address)
    return 'ok'
def status(key):
    return [line.split()[1] for line in open('/proc/self/status') if line.startswith(key + ':')][0]
PTRACE_ATTACH, NEWUSER, NEWNS = 16, 0x10000000, 0x20000
print(json.dumps({
    'mount': call('mount', b'none', b'/tmp', b'tmpfs', 0, None),
    'umount': call('umount2', b'/home/work', 2),
    'umount config': call('umount2', b'/home/config', 2),
    'unshare user': call('unshare', NEWUSER),
    'unshare mount': call('unshare', NEWNS),
    'chroot': call('chroot', b'/tmp'),
    'setns': call('setns', os.open('/proc/self/ns/mnt', os.O_RDONLY), 0),
    'setuid': call('setuid', 0),
    'sethostname': call('sethostname', b'x', 1),
    'ptrace': call('ptrace', PTRACE_ATTACH, 1, None, None),
    'kill runner': attempt(lambda: os.kill(1, 9)),
    'write /usr': attempt(lambda: write('/usr/x')),
    'write /etc': attempt(lambda: write('/etc/passwd')),
    'write /': attempt(lambda: write('/x')),
    'write config': attempt(lambda: write('/home/config/x')),
    'write sysctl': attempt(lambda: write('/proc/sys/kernel/core_pattern')),
    'write cgroup': attempt(lambda: write('/sys/fs/cgroup/pids/pids.max')),
    'runner memory': attempt(lambda: open('/proc/1/mem', 'rb').read(1)),
    'runner root': attempt(lambda: os.listdir('/proc/1/root')),
    'runner environ': attempt(lambda: open('/proc/1/environ').read()),
    'runner descriptors': attempt(lambda: os.listdir('/proc/1/fd')),
    'control': attempt(lambda: os.listdir('/opt/kernel/control')),
    'runner socket': attempt(lambda: connect('/opt/kernel/control/runner.sock')),
    'docker': attempt(lambda: connect('/run/docker.sock')),
    'abstract socket': attempt(lambda: connect('\0' + ABSTRACT)),
    'raw socket': attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    'raw disk': attempt(lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))),
    'shadow': attempt(lambda: open('/etc/shadow').read()),
    'scratch': attempt(lambda: os.listdir(SCRATCH)),
    'homes': sorted(os.listdir('/home')),
    'tmp': os.listdir('/tmp'),
    'dev': [name for name in os.listdir('/dev') if name.startswith(('sd', 'vd', 'nvme', 'mem', 'kmsg', 'fuse'))],
    'processes': [name for name in os.listdir('/proc') if name.isdigit() and int(name) > 1000],
    'users': [line.split(':')[0] for line in open('/etc/passwd')],
    'capabilities': [status(key) for key in ('CapPrm', 'CapEff', 'CapAmb')],
    'no new privileges': status('NoNewPrivs'),
    'seccomp': status('Seccomp'),
    'setuid program': subprocess.run(['su', '-c', 'id -u'], capture_output=True, stdin=subprocess.DEVNULL).returncode != 0,
}))
";

fn attempts(kernel: &mut Kernel, _proof: &Proof) {
    let name = format!("bai-test-{}", kernel.spec.kernel.id);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let scratch = kernel.spec.control_dir.parent().unwrap().parent().unwrap();
    let names = format!("ABSTRACT = {name:?}\nSCRATCH = {:?}\n", scratch.display().to_string());
    let output = kernel.client.output(&(names + ATTEMPTS));
    let seen: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
    let strings = |key: &str| {
        seen[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for key in [
        "mount",
        "umount",
        "umount config",
        "unshare user",
        "unshare mount",
        "chroot",
        "setns",
        "setuid",
        "sethostname",
        "ptrace",
        "abstract socket",
        "raw disk",
    ] {
        // A user id that the namespace does not have is invalid.
        let refused = ["EPERM", "EACCES", "EINVAL"].map(Value::from);
        assert!(refused.contains(&seen[key]), "{key}: {}", seen[key]);
    }
    for key in ["write /usr", "write /etc", "write /", "write config", "write sysctl", "write cgroup"] {
        let refused = ["EROFS", "EACCES", "ENOENT", "EPERM"].map(Value::from);
        assert!(refused.contains(&seen[key]), "{key}: {}", seen[key]);
    }
    for key in ["runner memory", "runner root", "runner environ", "runner descriptors"] {
        let refused = ["EPERM", "EACCES"].map(Value::from);
        assert!(refused.contains(&seen[key]), "{key}: {}", seen[key]);
    }
    for (key, refused) in [
        ("runner socket", "ENOENT"),
        ("docker", "ENOENT"),
        ("scratch", "ENOENT"),
        ("raw socket", "EAFNOSUPPORT"),
    ] {
        assert_eq!(seen[key], refused, "{key}");
    }
    assert_eq!(strings("control"), Vec::<String>::new());
    assert_eq!(strings("dev"), Vec::<String>::new());
    assert_eq!(strings("processes"), Vec::<String>::new());
    assert_eq!(strings("homes"), ["config", "work"]);
    assert!(
        strings("users").contains(&"work".to_owned()) && strings("users").len() <= 3,
        "{}",
        seen["users"]
    );
    assert_eq!(seen["shadow"], "");
    assert!(
        strings("capabilities").iter().all(|set| set.chars().all(|digit| digit == '0')),
        "{}",
        seen["capabilities"]
    );
    assert_eq!((&seen["no new privileges"], &seen["seccomp"]), (&Value::from("1"), &Value::from("2")));
    assert_eq!(seen["setuid program"], true);
    // The signal is accepted within the namespace and does nothing to its first process, or is refused.
    assert!(seen["kill runner"].is_null() || seen["kill runner"] == "EPERM", "{}", seen["kill runner"]);
}

fn kill_everything(kernel: &mut Kernel, _proof: &Proof) {
    kernel.client.run("import subprocess; subprocess.Popen(['sleep', '600'])");
    let ran = kernel.client.run("import os; os.kill(-1, 9); os.kill(os.getpid(), 9)");
    assert_eq!(ran.signal, Some(9), "{ran:?}");
}

fn fork_bomb(kernel: &mut Kernel, _proof: &Proof) {
    let forks = kernel.client.output(
        "import os, time\n\
         forks = 0\n\
         try:\n\
         \x20   while forks < 100000:\n\
         \x20       if os.fork() == 0: time.sleep(600); os._exit(0)\n\
         \x20       forks += 1\n\
         except OSError: pass\n\
         print(forks)",
    );
    let forks: u32 = forks.parse().unwrap();
    assert!((1..PIDS).contains(&forks), "{forks}");
    kernel.client.run("import os; os.kill(-1, 9)");
}

fn memory_hog(kernel: &mut Kernel, proof: &Proof) {
    let ran = kernel.client.run("hog = []\nwhile True: hog.append(bytearray(8 << 20))");
    if proof.by_group {
        assert_eq!(ran.signal, Some(9), "{ran:?}");
    } else {
        assert!(ran.output.contains("MemoryError"), "{ran:?}");
    }
}

fn large_file(kernel: &mut Kernel, _proof: &Proof) {
    let answer = kernel.client.output(
        "import errno, os\n\
         try:\n\
         \x20   with open('/home/work/large', 'wb') as file: file.truncate(1 << 40)\n\
         \x20   print('ok')\n\
         except OSError as error: print(errno.errorcode[error.errno])\n\
         print(os.stat('/home/work/large').st_size)",
    );
    assert_eq!(answer, "EFBIG\n0");
}
