//! Code that tries to harm the host or other kernels, in kernels proven to be isolated first.

use bai_core::port::KernelBackend;
use serde_json::Value;

use super::kernel::{Host, Kernel, PIDS, PYTHON, Proof};

type Attack = fn(&mut Kernel, &Proof);

/// Every attack, each on a fresh kernel, with another kernel as bystander.
#[tokio::test(flavor = "multi_thread")]
async fn attacks_stay_inside() {
    let Some(host) = Host::new() else { return };
    let backend = host.backend().await;
    let mut other = Kernel::start(&host, &backend, PYTHON).await;
    other.client.output("x = 1");
    let attacks: [(Attack, bool); 4] =
        [(attempts, false), (kill_everything, false), (fork_bomb, false), (memory_hog, true)];
    for (attack, exhausts_memory) in attacks {
        let mut kernel = Kernel::start(&host, &backend, PYTHON).await;
        let proof = kernel.prove();
        attack(&mut kernel, &proof);
        assert_eq!(kernel.client.output("print('alive')"), "alive", "the kernel answers afterwards");
        let stats = backend.stats(kernel.reference()).await.unwrap();
        assert_eq!(stats["oom_kills"]["current"] != "0", exhausts_memory, "{stats:?}");
        let reference = kernel.reference();
        backend.stop(reference, std::time::Duration::from_secs(5)).await.unwrap();
        let listed = backend.list().await.unwrap();
        let ended = listed.into_iter().find(|started| started.kernel == reference).unwrap();
        assert!(!ended.exit.unwrap().oom, "the end was asked for, whatever was killed before");
        backend.remove(reference).await.unwrap();
        assert_eq!(other.client.output("print(x)"), "1", "the other kernel is untouched");
    }
    other.end(&backend).await;
    assert_eq!(host.containers().await, Vec::<String>::new());
}

/// Each attempt is tried in Python; the answer is the error it met, or what it got.
const ATTEMPTS: &str = r"
import ctypes, errno, json, os, socket
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
print(json.dumps({'refused': {
    'mount': call('mount', b'none', b'/tmp', b'tmpfs', 0, None),
    'umount': call('umount2', b'/home/work', 2),
    'unshare user': call('unshare', NEWUSER),
    'unshare mount': call('unshare', NEWNS),
    'chroot': call('chroot', b'/tmp'),
    'setuid': call('setuid', 0),
    'sethostname': call('sethostname', b'x', 1),
    'ptrace': call('ptrace', PTRACE_ATTACH, 1, None, None),
    'kill runner': attempt(lambda: os.kill(1, 9)),
    'write /etc': attempt(lambda: write('/etc/passwd')),
    'write config': attempt(lambda: write('/home/config/x')),
    'write runner': attempt(lambda: write('/opt/kernel/bai-krunner')),
    'write sysctl': attempt(lambda: write('/proc/sys/kernel/core_pattern')),
    'write cgroup': attempt(lambda: write('/sys/fs/cgroup/pids/pids.max')),
    'runner memory': attempt(lambda: open('/proc/1/mem', 'rb').read(1)),
    'runner root': attempt(lambda: os.listdir('/proc/1/root')),
    'runner environ': attempt(lambda: open('/proc/1/environ').read()),
    'control': attempt(lambda: os.listdir('/opt/kernel/control')),
    'runner socket': attempt(lambda: connect('/opt/kernel/control/runner.sock')),
    'runner token': attempt(lambda: open('/opt/kernel/control/runner.json').read()),
    'docker': attempt(lambda: connect('/run/docker.sock')),
    'raw socket': attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    'raw disk': attempt(lambda: os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)))},
    'processes': [name for name in os.listdir('/proc') if name.isdigit() and int(name) > 1000],
    'capabilities': [status(key) for key in ('CapPrm', 'CapEff', 'CapAmb')],
    'no new privileges': status('NoNewPrivs'),
    'seccomp': status('Seccomp'),
}))
";

fn attempts(kernel: &mut Kernel, _: &Proof) {
    let output = kernel.client.output(ATTEMPTS);
    let seen: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
    for (attempt, answer) in seen["refused"].as_object().unwrap() {
        let refused = ["EPERM", "EACCES", "EROFS", "ENOENT", "EINVAL", "EAFNOSUPPORT"].map(Value::from);
        assert!(refused.contains(answer), "{attempt}: {answer}");
    }
    assert_eq!(seen["processes"], Value::Array(Vec::new()));
    for set in seen["capabilities"].as_array().unwrap() {
        assert!(set.as_str().unwrap().chars().all(|digit| digit == '0'), "{}", seen["capabilities"]);
    }
    assert_eq!((&seen["no new privileges"], &seen["seccomp"]), (&Value::from("1"), &Value::from("2")));
}

fn kill_everything(kernel: &mut Kernel, _: &Proof) {
    // The interpreter itself survives: the signal goes to all others.
    kernel.client.run("import os, signal; os.kill(-1, signal.SIGKILL)");
}

fn fork_bomb(kernel: &mut Kernel, _: &Proof) {
    let output = kernel.client.output(
        "import os, time\n\
         children = []\n\
         try:\n\
         \x20   while True:\n\
         \x20       child = os.fork()\n\
         \x20       if child == 0:\n\
         \x20           time.sleep(600)\n\
         \x20       children.append(child)\n\
         except BlockingIOError:\n\
         \x20   print(len(children))\n\
         for child in children:\n\
         \x20   os.kill(child, 9)\n\
         \x20   os.waitpid(child, 0)",
    );
    let count: u32 = output.parse().unwrap();
    assert!(count < PIDS && count > PIDS / 4, "{count}");
}

fn memory_hog(kernel: &mut Kernel, _: &Proof) {
    let ran = kernel.client.run("hog = b'x' * (1 << 20)\nwhile True: hog += hog");
    // Python notices by itself, or the kernel of the host ends it.
    assert!(ran.exit_code == 1 || ran.signal == Some(9), "{ran:?}");
}
